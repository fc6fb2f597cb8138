"""The rule that accepts or refuses the requests of one append call, and the verdicts that follow from it.

PostgreSQL has the same rule once more, in SQL, for batches in which not every request is accepted (``append_events``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from eventcore.stores.base import CONFLICT, START, AppendRequest, Checkpoint, Verdict


def base_versions(requests: Iterable[AppendRequest]) -> dict[str, int]:
    """The version that each stream must have when the call begins, as the first request that names the stream has it."""
    versions: dict[str, int] = {}
    for request in requests:
        for stream, version in request.base.items():
            versions.setdefault(stream, version)
    return versions


def accepts(request: AppendRequest, began: Mapping[str, int], current: dict[str, int]) -> bool:
    """Whether a request is accepted; if so, ``current`` is moved to the versions after its events.

    Args:
        request: the next request of the call.
        began: the versions of all its streams when the call began.
        current: their versions after the requests that were accepted so far.
    """
    base = request.base
    for stream, version in request.expected.items():
        if began[stream] != base[stream] or current[stream] != version:
            return False
    for new in request.events:
        current[new.recorded.stream_id] = new.recorded.version
    return True


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
