"""Events: the base class that applications derive from, and the recorded event that a store returns."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from typing import Any, ClassVar, Final, dataclass_transform, final

import msgspec

from eventcore.errors import InvalidEventType
from eventcore.events.stream_id import StreamId

_EVENT_TYPE: Final = re.compile(r"[^\s\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,255}")


# A type checker must know that subclasses are frozen without saying so.
@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Event(msgspec.Struct, frozen=True):
    """Base class of events. Events are immutable, and their fields are stored as JSON.

    The class variable ``event_type`` is the stored name of the class; its default is the class name. Fields may have any type
    that msgspec can write as JSON and read back equal.

    Raises:
        InvalidEventType: (when the class is defined) the type is not a name of 1 to 255 characters without white space, or
            another class has it. Defining the same class again, as a reload does, is allowed: the newest is used.

    >>> class SeatReserved(Event):
    ...     seat: str
    >>> class SeatReleased(Event):
    ...     event_type: ClassVar[str] = "seat-released.v1"
    ...     seat: str
    >>> SeatReserved.event_type, SeatReleased(seat="12A").event_type
    ('SeatReserved', 'seat-released.v1')
    """

    event_type: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        event_type = cls.__dict__.get("event_type", cls.__name__)
        # Python keeps a refused class alive, at least in the traceback of the error below. Without a type it blocks no other.
        cls.event_type = ""
        if not isinstance(event_type, str) or not _EVENT_TYPE.fullmatch(event_type):
            raise InvalidEventType(
                f"{_name(cls)}: event_type is {event_type!r:.300}; expected a text of 1 to 255 characters without white space, "
                'declared as event_type: ClassVar[str] = "…"'
            )
        if _rival(cls, event_type):
            # The other class may be unreachable, and only waiting for the garbage collector.
            gc.collect()
            if rival := _rival(cls, event_type):
                raise InvalidEventType(
                    f"{_name(cls)}: the event type {event_type!r} belongs to {_name(rival)}; "
                    'give one of them another: event_type: ClassVar[str] = "…"'
                )
        cls.event_type = event_type


def event_classes() -> Iterator[type[Event]]:
    """Every class derived from ``Event``, level by level, and in order of definition within each parent."""
    queue = Event.__subclasses__()
    while queue:
        cls = queue.pop(0)
        queue += cls.__subclasses__()
        if cls.event_type:
            yield cls


def _rival(cls: type[Event], event_type: str) -> type[Event] | None:
    """Another class with the same stored type. One with the same full name is no rival, but an older definition."""
    return next((other for other in event_classes() if other.event_type == event_type and _name(other) != _name(cls)), None)


def _name(cls: type[Event]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


@final
class EventMetadata(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Where an event came from; stored with it.

    Attributes:
        command_type: the class name of the command that wrote the event.
        traceparent: the W3C trace context of the command's span, sampled or not; empty if telemetry was off.
        tracestate: the W3C trace state that belongs to it.
        correlation_id: as passed to ``execute``, or inherited from the enclosing span.
        causation_id: like ``correlation_id``.
        headers: as passed to ``execute``.
    """

    command_type: str = ""
    traceparent: str = ""
    tracestate: str = ""
    correlation_id: str | None = None
    causation_id: str | None = None
    headers: dict[str, str] = {}


@final
class RecordedEvent(msgspec.Struct, frozen=True, gc=False):
    """An event with its place in the store.

    Attributes:
        stream_id: the stream that it belongs to.
        version: its number in the stream, from 1 without gaps.
        position: its number in the store, from 1 without gaps. 0 only while ``Command.apply`` sees an event that is not
            committed yet.
        data: the event.
        metadata: where it came from.
        event_id: 32 hexadecimal digits.
        event_type: the stored name of its class.
        recorded_at_ns: nanoseconds since the Unix epoch by the clock of the writer. Clocks of writers differ: use ``position``
            to order events.
    """

    stream_id: StreamId
    version: int
    position: int
    data: Event
    metadata: EventMetadata
    event_id: str
    event_type: str
    recorded_at_ns: int
