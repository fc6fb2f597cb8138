"""The arguments of the SQL functions. Lists are passed as texts, which asyncpg encodes faster than arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from eventcore.events import StreamId, StreamPattern
from eventcore.stores.judging import base_versions, judge
from eventcore.stores.values import AppendRequest, EventFilter

# Separates the texts of a list. Ids and event types may not contain control characters, and JSON escapes them.
_SEPARATOR: Final = "\x1f"
_DATA_SEPARATOR: Final = _SEPARATOR.encode()
NO_KEYS: Final = ("", "", "{}", "{}", "{}")
"""The arguments of requests without idempotency keys (``key_arguments``)."""

_encode: Final = msgspec.json.Encoder().encode


def append_arguments(requests: Sequence[AppendRequest]) -> tuple[Any, ...]:
    """The 17 arguments that describe the requests, in the order of ``append_requests`` (``append_events`` explains them)."""
    news = [new for request in requests for new in request.events]
    events = [new.recorded for new in news]
    event_streams = [event.stream_id for event in events]
    if (simple := _simple(requests)) is not None:
        # Nearly all batches. Each check is of the next stream, and all requests are accepted if they hold.
        base, agreed, is_simple = simple, True, True
    else:
        base, agreed, is_simple = base_versions(requests), False, False
    if not is_simple and not base.keys() >= set(event_streams):
        # A stream is written without having been read: its first event must have the next version.
        for event in events:
            base.setdefault(event.stream_id, event.version - 1)
    checks = [len(request.expected) for request in requests]
    # Whether two requests name the same stream, or one does not check what it writes.
    chained = not is_simple and (
        sum(checks) != len(base)
        or 0 in checks
        or bool([1 for request in requests for new in request.events if new.recorded.stream_id not in request.base])
    )
    numbers = {stream: number for number, stream in enumerate(base, 1)}
    bases = _numbers(list(base.values()))
    if is_simple:
        check_streams, check_bases, check_versions = _numbers(list(numbers.values())), bases, bases
    else:
        agreed = all(judge(requests, base))
        check_streams = _numbers([numbers[stream] for request in requests for stream in request.expected])
        check_bases = _numbers([request.base[stream] for request in requests for stream in request.expected])
        check_versions = _numbers([version for request in requests for version in request.expected.values()])
    return (
        _texts(base),
        bases,
        agreed,
        _numbers(checks),
        check_streams,
        check_bases,
        check_versions,
        _numbers([len(request.events) for request in requests]),
        _numbers([numbers[stream] for stream in event_streams]),
        _texts(event_streams),
        _numbers([event.version for event in events]),
        _texts([event.event_id for event in events]),
        _texts([event.event_type for event in events]),
        _DATA_SEPARATOR.join([new.data for new in news]).decode(),
        _DATA_SEPARATOR.join([new.metadata for new in news]).decode(),
        _numbers([event.recorded_at_ns for event in events]),
        chained,
    )


def _simple(requests: Sequence[AppendRequest]) -> dict[StreamId, int] | None:
    """All streams in order, with their versions, if no two requests share one, and each checks what it writes."""
    base: dict[StreamId, int] = {}
    checks = 0
    for request in requests:
        expected = request.expected
        # Nearly always one dictionary.
        if not expected or (expected is not request.base and expected != request.base):
            return None
        for new in request.events:
            if new.recorded.stream_id not in expected:
                return None
        base.update(expected)
        checks += len(expected)
    return base if len(base) == checks else None


def key_arguments(requests: Sequence[AppendRequest]) -> tuple[Any, ...]:
    """The last 5 arguments of ``append_requests``, which describe the idempotency keys of the requests."""
    numbered = [(number, request.key) for number, request in enumerate(requests, 1) if request.key is not None]
    return (
        _texts([key.key for _, key in numbered]),
        _texts([key.fingerprint for _, key in numbered]),
        _numbers([number for number, _ in numbered]),
        _numbers([key.attempts for _, key in numbered]),
        _numbers([key.seconds for _, key in numbered]),
    )


def streams_of(arguments: tuple[Any, ...]) -> tuple[list[StreamId], list[int]]:
    """The streams that ``append_arguments`` names, and their versions in ``base``."""
    streams, bases = arguments[:2]
    return [StreamId(stream) for stream in streams.split(_SEPARATOR)], msgspec.json.decode(f"[{bases[1:-1]}]")


def _texts(texts: Iterable[str]) -> str:
    return _SEPARATOR.join(texts)


def _numbers(numbers: list[int] | list[float]) -> str:
    # An array literal is a JSON array in braces. The encoder is several times faster than joining the texts of the numbers.
    return f"{{{_encode(numbers)[1:-1].decode()}}}"


def regular_expression(pattern: StreamPattern) -> str:
    """The pattern as a regular expression of PostgreSQL.

    The expression for Python means the same there: it escapes only single characters that are neither letters nor digits.
    Ranges such as ``[a-z]`` agree, since the collation of stream ids orders characters by their code points.
    """
    return f"^(?:{pattern.regex.pattern})$"


def conditions(wanted: EventFilter) -> tuple[str | None, Sequence[str] | None]:
    """The regular expression and the event types of a filter, as ``scan_events`` and ``follow_events`` take them."""
    return (None if wanted.pattern is None else regular_expression(wanted.pattern)), wanted.event_types
