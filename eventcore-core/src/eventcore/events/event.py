"""Events: what is stored, as classes; and what is read back, with its place in the store."""

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
    """Base class of everything that can happen: immutable, its fields are what is stored.

    ``event_type`` is the name under which the class is stored: its class name, unless the class says otherwise. Fields take any
    type that msgspec can write as JSON and read back equal.

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
        # A refused class lives on in the traceback of its refusal; without a type it does not stand in anyone's way.
        cls.event_type = ""
        if not isinstance(event_type, str) or not _EVENT_TYPE.fullmatch(event_type):
            raise InvalidEventType(
                f"{_name(cls)}: event_type is {event_type!r:.300}; expected a text of 1 to 255 characters without white space, "
                'declared as event_type: ClassVar[str] = "…"'
            )
        if _rival(cls, event_type):
            # A class that nobody can use any more may still wait for the garbage collector.
            gc.collect()
            if rival := _rival(cls, event_type):
                raise InvalidEventType(
                    f"{_name(cls)}: the event type {event_type!r} belongs to {_name(rival)}; "
                    'give one of them another: event_type: ClassVar[str] = "…"'
                )
        cls.event_type = event_type


def event_classes() -> Iterator[type[Event]]:
    """Every class derived from ``Event`` that is alive, in order of definition within each parent."""
    waiting = Event.__subclasses__()
    while waiting:
        cls = waiting.pop(0)
        waiting += cls.__subclasses__()
        if cls.event_type:
            yield cls


def _rival(cls: type[Event], event_type: str) -> type[Event] | None:
    place = cls.__module__, cls.__qualname__
    for other in event_classes():
        if other is not cls and other.event_type == event_type and (other.__module__, other.__qualname__) != place:
            return other
    return None


def _name(cls: type[Event]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


@final
class EventMetadata(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What is stored beside an event: where it came from.

    ``traceparent`` and ``tracestate`` are the W3C headers of the span that wrote the event, sampled or not (empty when
    telemetry was off). ``headers`` are the caller's own.
    """

    command_type: str = ""
    traceparent: str = ""
    tracestate: str = ""
    correlation_id: str | None = None
    causation_id: str | None = None
    headers: dict[str, str] = {}


@final
class RecordedEvent(msgspec.Struct, frozen=True, gc=False):
    """An event as it stands in the store.

    ``version`` counts from 1 in its stream and ``position`` from 1 in the store, both without gaps. ``position`` is 0 only
    while ``Command.apply`` sees an event whose commit is still on its way. ``event_id`` is 32 hexadecimal digits;
    ``recorded_at_ns`` nanoseconds since the Unix epoch by the writer's clock, which orders nothing.
    """

    stream_id: StreamId
    version: int
    position: int
    data: Event
    metadata: EventMetadata
    event_id: str
    event_type: str
    recorded_at_ns: int
