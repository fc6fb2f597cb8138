from __future__ import annotations

import gc
from typing import Any, ClassVar

import pytest

from eventcore import Event
from eventcore.errors import InvalidEventType


def test_the_stored_type_is_the_class_name_unless_the_class_says_otherwise() -> None:
    class EventsNamed(Event):
        pass

    class EventsRenamed(EventsNamed):
        event_type: ClassVar[str] = "events.renamed.v2"

    class EventsBelow(EventsRenamed):
        pass

    assert [cls.event_type for cls in (EventsNamed, EventsRenamed, EventsBelow)] == [
        "EventsNamed",
        "events.renamed.v2",
        "EventsBelow",
    ]


def test_events_are_immutable() -> None:
    class EventsFrozen(Event):
        amount: int

    with pytest.raises(AttributeError):
        EventsFrozen(amount=1).amount = 2  # type: ignore[misc]  # that is the point


def test_two_classes_with_one_type_are_refused_when_the_second_is_defined() -> None:
    class EventsFirst(Event):
        event_type: ClassVar[str] = "events.taken"

    with pytest.raises(InvalidEventType, match=r"EventsSecond: the event type 'events.taken' belongs to .*EventsFirst"):

        class EventsSecond(Event):
            event_type: ClassVar[str] = "events.taken"

    class EventsThird(EventsFirst):
        event_type: ClassVar[str] = "events.free"

    assert EventsThird.event_type == "events.free"


def test_a_refused_class_stands_in_nobodys_way() -> None:
    def define() -> type[Event]:
        class EventsOwner(Event):
            event_type: ClassVar[str] = "events.owned"

        return EventsOwner

    owner = define()
    with pytest.raises(InvalidEventType) as refusal:

        class EventsThief(Event):
            event_type: ClassVar[str] = "events.owned"

    # The traceback keeps the refused class alive.
    assert refusal.traceback
    assert define().event_type == owner.event_type == "events.owned"


def test_defining_a_class_again_is_a_reload() -> None:
    def define() -> type[Event]:
        class EventsReloaded(Event):
            pass

        return EventsReloaded

    old, new = define(), define()
    assert old is not new
    assert old.event_type == new.event_type


def test_a_type_of_a_class_that_nobody_holds_any_more_is_free() -> None:
    def define_and_forget() -> None:
        class EventsForgotten(Event):
            event_type: ClassVar[str] = "events.forgotten"

        assert EventsForgotten.event_type

    gc.disable()
    try:
        define_and_forget()

        class EventsNext(Event):
            event_type: ClassVar[str] = "events.forgotten"
    finally:
        gc.enable()
    assert EventsNext.event_type == "events.forgotten"


@pytest.mark.parametrize("event_type", ["", "has space", "line\nbreak", "x" * 256, 7, None])
def test_a_type_that_is_no_name_is_refused(event_type: Any) -> None:
    with pytest.raises(InvalidEventType, match=r"EventsMisnamed: event_type is .*expected a text of 1 to 255 characters"):
        type("EventsMisnamed", (Event,), {"event_type": event_type})


def test_a_type_declared_as_a_field_is_refused() -> None:
    with pytest.raises(InvalidEventType, match="declared as event_type: ClassVar"):

        class EventsField(Event):
            event_type: str = "events.field"  # type: ignore[misc]  # that is the point
