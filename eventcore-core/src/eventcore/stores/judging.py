"""The rule that accepts or refuses the requests of one append call, and the verdicts that follow from it.

PostgreSQL has the same rule once more, in SQL, for batches in which not every request is accepted (``append_events``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from eventcore.events import StreamId
from eventcore.stores.base import CONFLICT, START, AppendRequest, Checkpoint, Verdict, Versions


def base_versions(requests: Sequence[AppendRequest]) -> dict[StreamId, int]:
    """The version that each stream must have when the call begins, as the first request that names the stream has it."""
    versions: dict[StreamId, int] = {}
    # In reverse order, so that the first request overwrites the others: one update for each request is faster than a look-up
    # for each stream.
    for request in reversed(requests):
        versions.update(request.base)
    return versions


def judge(requests: Iterable[AppendRequest], began: Versions) -> list[bool]:
    """Whether each request is accepted, in order.

    Args:
        requests: the requests of one call.
        began: the versions of all their streams when the call began.
    """
    current = dict(began)
    accepted: list[bool] = []
    for request in requests:
        base = request.base
        for stream, version in request.expected.items():
            if began[stream] != base[stream] or current[stream] != version:
                accepted.append(False)
                break
        else:
            for new in request.events:
                event = new.recorded
                current[event.stream_id] = event.version
            accepted.append(True)
    return accepted


def verdicts(requests: Sequence[AppendRequest], accepted: Iterable[bool], head: int) -> list[Verdict]:
    """The verdict on each request: the accepted ones take the positions after ``head`` in order."""
    found: list[Verdict] = []
    for request, is_accepted in zip(requests, accepted, strict=True):
        if not is_accepted:
            found.append(CONFLICT)
        elif request.events:
            found.append(head + 1)
            head += len(request.events)
        else:
            found.append(0)
    return found


def last_appended(requests: Sequence[AppendRequest], verdicts: Sequence[Verdict]) -> Checkpoint:
    """The last event that a call has appended, ``START`` when it has appended none."""
    for request, first in zip(reversed(requests), reversed(verdicts), strict=True):
        if first > 0:
            return Checkpoint(first + len(request.events) - 1, request.events[-1].recorded.event_id)
    return START
