"""How much memory events take: estimated from the length of their JSON, by samples of the same class and size.

Walking through an event costs as much as decoding it. So one event of 256 is measured, and the others of its class and size
(to a power of two) are taken to be like it. Events that one command has written together, and that are alike, count as one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from sys import getsizeof
from typing import Any, Final, cast, final

import msgspec

from eventcore.events import Event, EventMetadata, RecordedEvent
from eventcore.ground import dataclass_fields

_SAMPLE_EVERY: Final = 256
# Members of a collection that are measured; the others are taken to be like them.
_MEMBERS: Final = 32
_DEEPEST: Final = 20
# CPython has one object for each of these integers.
_SMALL_INTEGERS: Final = range(-5, 257)


class _Sample(msgspec.Struct):
    """One measured event.

    Attributes:
        fixed: bytes beside the data.
        metadata: bytes of them for metadata, which events of one command share.
        ratio: bytes of the data in memory for one byte of its JSON.
        uses: how often it was used.
    """

    fixed: int
    metadata: int
    ratio: float
    uses: int = 0


@final
class EventSizes:
    """Estimates the memory of events. Used on the event loop only."""

    def __init__(self) -> None:
        self._samples: dict[tuple[type[Event], int], _Sample] = {}

    def of(self, event: RecordedEvent, json_length: int, before: EventMetadata | None = None) -> int:
        """Bytes that an event takes.

        Args:
            event: the event; its stream id is not counted, since all events of a stream share it.
            json_length: the length of its data as JSON.
            before: metadata that was counted already; not counted again if the event has the same.
        """
        sample = self._sample(event, json_length)
        sample.uses += 1
        size = sample.fixed + int(sample.ratio * json_length)
        metadata = event.metadata
        if metadata is before:
            return size - sample.metadata
        return size + memory_of(metadata.headers) if metadata.headers else size

    def of_command(self, events: Sequence[RecordedEvent], json_lengths: Sequence[int]) -> Sequence[int]:
        """Bytes that each of the events of one command takes, as ``of`` says. They share their metadata, which counts once."""
        count = len(events)
        kind = type(events[0].data)
        if max(json_lengths) <= 2 * min(json_lengths) and count == [type(event.data) for event in events].count(kind):
            # They are alike: the mean of their lengths is as good as the length of each.
            sample = self._sample(events[0], json_lengths[0])
            sample.uses += 1
            size = sample.fixed + int(sample.ratio * sum(json_lengths)) // count - sample.metadata
            return [self.of(events[0], json_lengths[0]), *[size] * (count - 1)]
        sizes = [self.of(events[0], json_lengths[0])]
        for event, length in zip(events[1:], json_lengths[1:], strict=True):
            sizes.append(self.of(event, length, event.metadata))
        return sizes

    def _sample(self, event: RecordedEvent, json_length: int) -> _Sample:
        key = (type(event.data), json_length.bit_length())
        sample = self._samples.get(key)
        if sample is None or sample.uses >= _SAMPLE_EVERY:
            sample = self._samples[key] = _measured(event, json_length)
        return sample


def _measured(event: RecordedEvent, json_length: int) -> _Sample:
    parts = (event.event_id, event.event_type, event.version, event.position, event.recorded_at_ns)
    metadata = memory_of(event.metadata) - (memory_of(event.metadata.headers) if event.metadata.headers else 0)
    # The 8 bytes are the reference that the cache holds.
    fixed = getsizeof(event) + 8 + metadata + sum(map(memory_of, parts))
    return _Sample(fixed, metadata, memory_of(event.data) / max(1, json_length))


def memory_of(value: Any, depth: int = 0) -> int:
    """Bytes that a value takes with everything that it holds; objects that are shared by nature are not counted."""
    if value is None or isinstance(value, bool | type) or depth > _DEEPEST:
        return 0
    if isinstance(value, int):
        return 0 if value in _SMALL_INTEGERS else getsizeof(value)
    if isinstance(value, str | bytes):
        return getsizeof(value) if len(value) > 1 else 0
    inside: Iterable[Any]
    size = getsizeof(value)
    if isinstance(value, msgspec.Struct):
        inside = [getattr(value, name) for name in value.__struct_fields__]
    elif isinstance(value, dict | list | tuple | set | frozenset):
        collection = cast(Collection[Any], value)
        sample = list(islice(collection, _MEMBERS))
        if isinstance(value, dict):
            sample += islice(cast(Mapping[Any, Any], value).values(), _MEMBERS)
        members = sum(memory_of(part, depth + 1) for part in sample)
        return size + members * len(collection) // max(1, min(_MEMBERS, len(collection)))
    elif (fields := dataclass_fields(value.__class__)) is not None:
        inside = [getattr(value, field.name) for field in fields]
        size += getsizeof(value.__dict__) if hasattr(value, "__dict__") else 0
    else:
        return size
    return size + sum(memory_of(part, depth + 1) for part in inside)
