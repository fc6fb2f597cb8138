from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, ClassVar

import msgspec
import pytest

from eventcore import Event, StreamId
from eventcore.errors import InvalidEventType
from eventcore.events.codec import Codec


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


def test_two_classes_with_one_type_are_refused_when_one_is_used_and_not_when_it_is_defined() -> None:
    class EventsFirst(Event):
        event_type: ClassVar[str] = "events.taken"

    class EventsSecond(Event):
        event_type: ClassVar[str] = "events.taken"

    for cls in (EventsFirst, EventsSecond):
        with pytest.raises(InvalidEventType, match=r"'events.taken' belongs to .*EventsFirst and to .*EventsSecond"):
            Codec().encode(cls())


def test_a_class_that_was_used_before_another_took_its_type_is_used_on() -> None:
    class EventsEarlier(Event):
        event_type: ClassVar[str] = "events.early"

    codec = Codec()
    codec.encode(EventsEarlier())

    class EventsLater(Event):
        event_type: ClassVar[str] = "events.early"

    with pytest.raises(InvalidEventType, match="belongs to"):
        codec.encode(EventsLater())
    assert codec.encode(EventsEarlier())[1] == EventsEarlier()


def test_a_refused_class_stands_in_nobodys_way() -> None:
    with pytest.raises(InvalidEventType) as refusal:

        class EventsRefused(Event):
            event_type: ClassVar[str] = "events.owned"
            value: list[int] | set[int]

    class EventsOwner(Event):
        event_type: ClassVar[str] = "events.owned"

    # The traceback keeps the refused class alive.
    assert refusal.traceback
    assert Codec().encode(EventsOwner())[1] == EventsOwner()


def test_defining_a_class_again_is_a_reload() -> None:
    def define() -> type[Event]:
        class EventsReloaded(Event):
            pass

        return EventsReloaded

    old, new = define(), define()
    assert old is not new
    assert old.event_type == new.event_type
    assert type(Codec().encode(new())[1]) is new


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

        assert Codec().encode(EventsNext())[1] == EventsNext()
    finally:
        gc.enable()


@pytest.mark.parametrize("event_type", ["", "has space", "line\nbreak", "x" * 256, 7, None])
def test_a_type_that_is_no_name_is_refused(event_type: Any) -> None:
    with pytest.raises(InvalidEventType, match=r"EventsMisnamed: event_type is .*expected a text of 1 to 255 characters"):
        type("EventsMisnamed", (Event,), {"event_type": event_type})


def test_a_type_declared_as_a_field_is_refused() -> None:
    with pytest.raises(InvalidEventType, match="declared as event_type: ClassVar"):

        class EventsField(Event):
            event_type: str = "events.field"  # type: ignore[misc]  # that is the point


class _Plain:
    """A class of which msgspec knows nothing."""


class _Holder(msgspec.Struct):
    parts: dict[str, list[_Plain]]


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (_Plain, "it holds .*_Plain, which has no form in JSON; derive that class from msgspec.Struct"),
        (_Holder, "it holds .*_Plain, which has no form in JSON"),
        (list[_Plain] | None, "it holds .*_Plain, which has no form in JSON"),
        (complex, "it holds builtins.complex"),
        (Callable[[], int], "it holds collections.abc.Callable"),
        (list[int] | set[int], "may not contain more than one array-like"),
        (msgspec.msgpack.Ext, "it holds msgpack.Ext"),
        (dict[tuple[int, int], str], "a dictionary whose keys cannot be a text in JSON"),
        ("list[", "its annotations cannot be read"),
    ],
)
def test_a_class_that_cannot_be_read_from_json_is_refused_when_it_is_defined(kind: Any, problem: str) -> None:
    with pytest.raises(InvalidEventType, match=f"EventsUnreadable: .*{problem}"):
        type("EventsUnreadable", (Event,), {"__annotations__": {"value": kind}})


def test_a_field_of_a_class_that_is_defined_later_is_checked_when_the_class_is_used() -> None:
    def readable() -> Any:
        return type("EventsReadable", (Event,), {"__annotations__": {"part": "EventsPart"}, "__module__": __name__})

    def unreadable() -> Any:
        return type("EventsUnreadable", (Event,), {"__annotations__": {"part": "EventsPlain"}, "__module__": __name__})

    good, bad, lost = readable(), unreadable(), type("EventsLost", (Event,), {"__annotations__": {"part": "Nowhere"}})
    globals()["EventsPart"] = part = msgspec.defstruct("EventsPart", [("name", str)])
    globals()["EventsPlain"] = _Plain
    try:
        assert Codec().encode(good(part=part(name="a")))[0] == b'{"part":{"name":"a"}}'
        with pytest.raises(InvalidEventType, match=r"EventsUnreadable cannot be read from JSON: it holds .*_Plain"):
            Codec().encode(bad(part=_Plain()))
        with pytest.raises(
            InvalidEventType, match=r"EventsLost: its annotations cannot be resolved .*'Nowhere' is not defined"
        ):
            Codec().encode(lost(part=1))
    finally:
        del globals()["EventsPart"], globals()["EventsPlain"]


def test_every_type_that_can_be_read_from_json_is_accepted() -> None:
    class EventsTyped(Event):
        streams: dict[StreamId, frozenset[StreamId]]
        tree: tuple[EventsTyped, ...] = ()
        ids: dict[int, float | None] = {}
        anything: Any = None

    event = EventsTyped(streams={StreamId("a"): frozenset({StreamId("b")})})
    assert event.streams[StreamId("a")] == {"b"}
