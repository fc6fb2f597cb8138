"""Events: the base class that applications derive from, and the recorded event that a store returns."""

from __future__ import annotations

from typing import Any, ClassVar, dataclass_transform, final

import msgspec

from eventcore.errors import InvalidEventType
from eventcore.events.classes import add_class, check_fields, class_name, is_event_type
from eventcore.events.stream_id import StreamId


# A type checker must know that subclasses are frozen without saying so.
@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Event(msgspec.Struct, frozen=True):
    """Base class of events. Events are immutable, and their fields are stored as JSON.

    The class variable ``event_type`` is the stored name of the class; its default is the class name. Fields may have any type
    that msgspec can write as JSON and read back equal.

    Two classes may have the same type, as in two modules of tests, as long as no store has to use one of them. Defining the
    same class again, as a reload does, is always allowed: the newest is used.

    Raises:
        InvalidEventType: (when the class is defined) the type is not a name of 1 to 255 characters without white space, or a
            field has a type that cannot be read from JSON. A type that is not defined yet is checked when a store first uses
            the class.

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
        # Python keeps a refused class alive, at least in the traceback of the error below. Without a type it is no event.
        cls.event_type = ""
        if not isinstance(event_type, str) or not is_event_type(event_type):
            raise InvalidEventType(
                f"{class_name(cls)}: event_type is {event_type!r:.300}; expected a text of 1 to 255 characters without white "
                'space, declared as event_type: ClassVar[str] = "…"'
            )
        check_fields(cls)
        cls.event_type = event_type
        add_class(cls, event_type)


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


@final
class RawEvent(msgspec.Struct, frozen=True, gc=False):
    """An event whose class this process does not know, as ``unknown="raw"`` gives it.

    Attributes:
        stream_id, version, position, metadata, event_id, event_type, recorded_at_ns: as in ``RecordedEvent``.
        data: the event as plain values: usually a ``dict`` from the name of a field to text, number, ``bool``, ``None``,
            ``list`` or ``dict``.
    """

    stream_id: StreamId
    version: int
    position: int
    data: Any
    metadata: EventMetadata
    event_id: str
    event_type: str
    recorded_at_ns: int
