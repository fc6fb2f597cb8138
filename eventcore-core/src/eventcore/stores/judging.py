"""The rules that accept or refuse the requests of one append call, and the verdicts that follow from them.

First the idempotency keys: a request with a known key is refused whatever its streams say. Then the versions.

PostgreSQL has the same rule once more, in SQL, for batches in which not every request is accepted (``append_events``).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence

from eventcore.events import StreamId
from eventcore.stores.paging import REFUSED_ROWS
from eventcore.stores.values import (
    CONFLICT,
    KNOWN_KEY,
    START,
    AppendRequest,
    Checkpoint,
    CommandKey,
    KeyRecord,
    Verdict,
    Versions,
)


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


def rows_to_return(base: Versions, began: Versions) -> dict[StreamId, int]:
    """The streams whose rows a call returns when it refuses requests, each with the version behind which they begin.

    Args:
        base: the versions that the requests name, as ``base_versions`` has them.
        began: the versions of the streams when the call began.
    """
    after: dict[StreamId, int] = {}
    room = REFUSED_ROWS
    for stream, version in base.items():
        missed = began[stream] - version
        if 0 < missed <= room:
            after[stream] = version
            room -= missed
    return after


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


def has_keys(requests: Sequence[AppendRequest]) -> bool:
    """Whether a request has a key. Most batches have none, and need none of the functions below."""
    # A list, which is faster than a generator: this runs for every append.
    return bool([None for request in requests if request.key is not None])


def with_new_keys(requests: Sequence[AppendRequest], known: Container[str]) -> list[AppendRequest]:
    """The requests to decide on: those without a key, and of those with one the first, if the store does not know the key."""
    return [request for request, is_new in _marked(requests, known) if is_new]


def with_known_keys(requests: Sequence[AppendRequest], known: Container[str], decided: Iterable[Verdict]) -> list[Verdict]:
    """The verdicts on all requests, from those on ``with_new_keys``."""
    verdicts = iter(decided)
    return [next(verdicts) if is_new else KNOWN_KEY for _, is_new in _marked(requests, known)]


def key_records(
    requests: Sequence[AppendRequest], verdicts: Sequence[Verdict], head: int
) -> list[tuple[CommandKey, KeyRecord]]:
    """What to keep of the accepted requests that have a key.

    Args:
        requests: the requests of one call.
        verdicts: the verdict on each.
        head: the head position before the call.
    """
    records: list[tuple[CommandKey, KeyRecord]] = []
    for request, first in zip(requests, verdicts, strict=True):
        if first > 0:
            head = first + len(request.events) - 1
        if first >= 0 and (key := request.key) is not None:
            records.append((key, KeyRecord(key.fingerprint, key.attempts, first, len(request.events), head)))
    return records


def _marked(requests: Sequence[AppendRequest], known: Container[str]) -> Iterator[tuple[AppendRequest, bool]]:
    seen: set[str] = set()
    for request in requests:
        key = request.key
        yield request, key is None or not (key.key in known or key.key in seen)
        if key is not None:
            seen.add(key.key)
