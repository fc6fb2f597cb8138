"""A batch of append requests as the arguments of ``append_events``, and the verdicts from what it returns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, final

from eventcore.events import StreamId
from eventcore.stores.base import START, AppendRequest, Checkpoint, Verdict

# Neither ids nor types may have a control character, and JSON writes it as an escape.
_SEPARATOR: Final = "\x1f"


@final
class Batch:
    """One call to ``append_events``; it may be sent again, with the same arguments."""

    __slots__ = ("_counts", "_data", "_ids", "_metadata", "arguments")

    def __init__(self, requests: Sequence[AppendRequest]) -> None:
        numbers: dict[StreamId, int] = {}
        bases: list[int] = []
        now: list[int] = []
        agreed = True
        check_counts: list[int] = []
        check_streams: list[int] = []
        check_bases: list[int] = []
        check_versions: list[int] = []
        event_streams: list[int] = []
        for request in requests:
            base = request.base
            check_counts.append(len(request.expected))
            for stream, version in request.expected.items():
                before = base[stream]
                if (number := numbers.get(stream)) is None:
                    number = numbers[stream] = len(numbers) + 1
                    bases.append(before)
                    now.append(before)
                if version != now[number - 1] or before != bases[number - 1]:
                    agreed = False
                check_streams.append(number)
                check_bases.append(before)
                check_versions.append(version)
            for new in request.events:
                event = new.recorded
                if (number := numbers.get(event.stream_id)) is None:
                    # Written without having been read: all that is asked is that its version is the next.
                    number = numbers[event.stream_id] = len(numbers) + 1
                    bases.append(event.version - 1)
                    now.append(0)
                now[number - 1] = event.version
                event_streams.append(number)
        news = [new for request in requests for new in request.events]
        recorded = [new.recorded for new in news]
        self._counts = [len(request.events) for request in requests]
        self._ids = [event.event_id for event in recorded]
        self._data = [new.data for new in news]
        self._metadata = [new.metadata for new in news]
        self.arguments: tuple[Any, ...] = (
            _texts(numbers),
            _numbers(bases),
            agreed,
            _numbers(check_counts),
            _numbers(check_streams),
            _numbers(check_bases),
            _numbers(check_versions),
            _numbers(self._counts),
            _numbers(event_streams),
            _texts([event.stream_id for event in recorded]),
            _numbers([event.version for event in recorded]),
            _texts(self._ids),
            _texts([event.event_type for event in recorded]),
            _SEPARATOR.encode().join(self._data).decode(),
            _SEPARATOR.encode().join(self._metadata).decode(),
            _numbers([event.recorded_at_ns for event in recorded]),
        )

    def verdicts(self, head: int, singly: Sequence[int] | None) -> Sequence[Verdict]:
        """The verdict of each request, from the two results of the function."""
        if singly is not None:
            return singly
        verdicts: list[Verdict] = []
        position = head + 1
        for count in self._counts:
            verdicts.append(position if count else 0)
            position += count
        return verdicts

    def size(self) -> int:
        """Its bytes of data and metadata."""
        return sum(map(len, self._data)) + sum(map(len, self._metadata))

    def end(self, verdicts: Sequence[Verdict]) -> Checkpoint:
        """The last event of the batch that was accepted, ``START`` when there is none."""
        last = behind = len(self._ids)
        for first, count in zip(reversed(verdicts), reversed(self._counts), strict=True):
            last, behind = behind - 1, behind - count
            if first > 0:
                return Checkpoint(first + count - 1, self._ids[last])
        return START


def _texts(texts: Iterable[str]) -> str:
    return _SEPARATOR.join(texts)


def _numbers(numbers: Iterable[int]) -> str:
    return f"{{{','.join(map(str, numbers))}}}"
