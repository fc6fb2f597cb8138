from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import enum
import math
import uuid
from decimal import Decimal
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventcore import Event, StreamId
from eventcore.errors import CorruptEvent, InvalidEvent, InvalidMetadata, UnknownEventType
from eventcore.events import EventMetadata, RawEvent, RecordedEvent
from eventcore.events.classes import known_types
from eventcore.events.codec import Codec, StoredEvent, check_headers, check_id
from eventcore.ground import in_words


class Colour(enum.Enum):
    RED = "red"


class Part(msgspec.Struct, frozen=True):
    name: str
    parts: tuple[Part, ...] = ()


class Everything(Event):
    event_type: ClassVar[str] = "codec.Everything"
    text: str
    number: int
    real: float
    flag: bool
    amount: Decimal
    when: dt.datetime
    day: dt.date
    ident: uuid.UUID
    colour: Colour
    blob: bytes
    maybe: str | None
    pairs: dict[str, int]
    several: tuple[int, ...]
    part: Part
    stream: StreamId


class Loose(Event):
    event_type: ClassVar[str] = "codec.Loose"
    value: Any


@dataclasses.dataclass(frozen=True)
class Span:
    begin: dt.datetime
    marks: dict[str, dt.datetime]


class Timed(Event):
    event_type: ClassVar[str] = "codec.Timed"
    when: dt.datetime
    several: tuple[dt.datetime | None, ...] = ()
    by_time: dict[dt.datetime, list[dt.datetime]] = {}
    sets: frozenset[dt.datetime] = frozenset()
    span: Span | None = None
    number: Any = None


storable_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def stored(event_type: str, data: bytes, metadata: str = "{}") -> StoredEvent:
    return StoredEvent(9, "s-1", 4, "0" * 32, event_type, data.decode(), metadata, 1)


@given(
    st.builds(
        Everything,
        text=storable_text,
        number=st.integers(-(2**63), 2**63 - 1),
        real=st.floats(allow_nan=False, allow_infinity=False),
        flag=st.booleans(),
        amount=st.decimals(allow_nan=False, allow_infinity=False),
        when=st.datetimes(timezones=st.just(dt.UTC)),
        day=st.dates(),
        ident=st.uuids(),
        colour=st.just(Colour.RED),
        blob=st.binary(),
        maybe=st.none() | storable_text,
        pairs=st.dictionaries(storable_text, st.integers(0, 9)),
        several=st.lists(st.integers(0, 9)).map(tuple),
        part=st.builds(Part, name=storable_text, parts=st.lists(st.builds(Part, name=storable_text)).map(tuple)),
        stream=st.sampled_from(["a", "b-7"]).map(StreamId),
    )
)
def test_every_event_reads_back_as_it_was_written(event: Everything) -> None:
    codec = Codec()
    data, twin = codec.encode(event)
    assert twin == event
    recorded = codec.decode(stored("codec.Everything", data), StreamId("s-1"))
    assert recorded.data == event
    assert type(recorded.data) is Everything
    assert type(recorded.data.stream) is StreamId


# In Berlin, 2:30 came twice on the 25th of October 2026, and not at all on the 29th of March.
@pytest.mark.parametrize("day", [(2026, 10, 25), (2026, 3, 29), (2026, 7, 1)])
@pytest.mark.parametrize("fold", [0, 1])
def test_a_time_with_a_zone_is_kept_in_every_hour_of_the_year(day: tuple[int, int, int], fold: int) -> None:
    when = dt.datetime(*day, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=fold)
    event = Timed(
        when=when,
        several=(when, None),
        by_time={when: [when]},
        sets=frozenset({when, when + dt.timedelta(hours=1)}),
        span=Span(when, {"end": when}),
    )
    _, twin = Codec().encode(event)
    assert isinstance(twin, Timed)
    assert twin.when.astimezone(dt.UTC) == when.astimezone(dt.UTC)


def test_another_field_is_blamed_than_a_time_in_a_repeated_hour() -> None:
    when = dt.datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    with pytest.raises(InvalidEvent, match="field 'number' would not read back equal: nan becomes None"):
        Codec().encode(Timed(when=when, number=math.nan))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
    max_leaves=10,
)


def hard_to_store(value: Any) -> bool:
    """Whether ``value`` contains something that JSON does not keep: NUL, a surrogate, NaN or an infinity."""
    match value:
        case dict():
            return any(hard_to_store(part) for item in value.items() for part in item)
        case list():
            return any(map(hard_to_store, value))
        case str():
            return "\0" in value or any(0xD800 <= ord(character) < 0xE000 for character in value)
        case float():
            return not math.isfinite(value)
        case _:
            return False


@given(json_values)
def test_whatever_is_accepted_reads_back_equal_and_the_rest_is_refused(value: Any) -> None:
    codec = Codec()
    try:
        data, _ = codec.encode(Loose(value=value))
    except InvalidEvent:
        assert hard_to_store(value)
    else:
        assert codec.decode(stored("codec.Loose", data), StreamId("s-1")).data == Loose(value=value)
        assert not hard_to_store(value)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (float("nan"), "field 'value' would not read back equal: nan becomes None"),
        (float("inf"), "field 'value' would not read back equal: inf becomes None"),
        ("a\0b", r"holds the character U\+0000"),
        ({"a\0b": 1}, r"holds the character U\+0000"),
        ("\ud800", "field 'value' cannot be written as JSON: .*surrogates not allowed"),
        (nested(100_000), "is nested too deeply"),
        (object(), "field 'value' cannot be written as JSON: values of type object have no form in JSON"),
        ((1, 2), r"field 'value' would not read back equal: \(1, 2\) becomes \[1, 2\]"),
        ({1, 2}, "field 'value' would not read back equal"),
        ("x" * 2000, "has 2012 bytes as JSON; at most 1000 are allowed"),
    ],
)
def test_a_value_that_would_not_read_back_is_refused_with_its_reason(value: Any, problem: str) -> None:
    with pytest.raises(InvalidEvent, match="event codec.Loose: " + problem):
        Codec(max_event_bytes=1000).encode(Loose(value=value))


def test_text_that_looks_like_an_escaped_nul_is_kept() -> None:
    data, twin = Codec().encode(Loose(value="\\u0000"))
    assert twin == Loose(value="\\u0000")
    assert msgspec.json.decode(data) == {"value": "\\u0000"}


def test_a_field_of_another_type_than_declared_is_refused_with_its_path() -> None:
    class CodecTyped(Event):
        part: Part

    with pytest.raises(InvalidEvent, match=r"CodecTyped: would not read back: Expected `str`, got `int` - at `\$.part.name`"):
        Codec().encode(CodecTyped(part=Part(name=7)))  # type: ignore[arg-type]  # that is the point


def test_what_is_stored_shares_nothing_with_the_callers_event() -> None:
    mine = {"a": 1}
    _, twin = Codec().encode(Loose(value=mine))
    mine["a"] = 2
    assert twin == Loose(value={"a": 1})


def test_an_unknown_type_is_named_with_the_known_ones_and_what_to_do() -> None:
    errors: list[tuple[str, str]] = []
    codec = Codec(on_error=lambda direction, event_type: errors.append((direction, event_type)))
    with pytest.raises(UnknownEventType) as refusal:
        codec.decode(stored("codec.Gone", b"{}"), StreamId("s-1"))
    text = str(refusal.value)
    assert "stream 's-1', version 4, position 9: no class of this process has the event type 'codec.Gone'" in text
    # Other tests of the process have classes, too, and the message names the first 20.
    assert "codec.Everything" in known_types()
    assert f"known are: {in_words(known_types())}" in text
    assert 'event_type: ClassVar[str] = "codec.Gone"' in text
    assert errors == [("decode", "codec.Gone")]
    error = refusal.value
    assert (error.stream_id, error.version, error.position, error.event_type) == ("s-1", 4, 9, "codec.Gone")


def test_a_type_that_two_classes_have_is_not_read() -> None:
    class CodecOne(Event):
        event_type: ClassVar[str] = "codec.clash"

    class CodecTwo(Event):
        event_type: ClassVar[str] = "codec.clash"

    for decode in (Codec().decode, Codec().decode_or_raw):
        with pytest.raises(UnknownEventType, match=r"position 9: .*'codec.clash' belongs to .*CodecOne and to .*CodecTwo"):
            decode(stored("codec.clash", b"{}"), StreamId("s-1"))
    assert CodecOne.event_type == CodecTwo.event_type


def test_an_unknown_type_is_read_as_plain_values() -> None:
    event = Codec().decode_or_raw(stored("codec.Gone", b'{"a":[1,null]}', '{"command_type":"Do"}'), StreamId("s-1"))
    assert event == RawEvent(
        StreamId("s-1"), 4, 9, {"a": [1, None]}, EventMetadata(command_type="Do"), "0" * 32, "codec.Gone", 1
    )
    known = Codec().decode_or_raw(stored("codec.Loose", b'{"value":1}'), StreamId("s-1"))
    assert (type(known), known.data) == (RecordedEvent, Loose(value=1))
    for data, metadata in ((b"{", "{}"), (b"{}", "[")):
        with pytest.raises(CorruptEvent, match="position 9") as refusal:
            Codec().decode_or_raw(stored("codec.Gone", data, metadata), StreamId("s-1"))
        assert refusal.value.position == 9


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"value"', b"null", b"{}"])
def test_a_corrupt_event_is_named_with_its_place(data: bytes) -> None:
    with pytest.raises(CorruptEvent, match=r"stream 's-1', version 4, position 9 cannot be read as codec.Loose: ") as refusal:
        Codec().decode(stored("codec.Loose", data), StreamId("s-1"))
    assert isinstance(refusal.value.__cause__, msgspec.DecodeError)


class Picky(Event):
    """Its own code raises ``refusal`` when it is made, also from JSON."""

    event_type: ClassVar[str] = "codec.Picky"
    refusal: ClassVar[BaseException | None] = None

    def __post_init__(self) -> None:
        if self.refusal is not None:
            raise self.refusal


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "refusal", [ValueError("no"), LookupError("no"), Mute(), SystemExit("no"), asyncio.CancelledError(), GeneratorExit()]
)
def test_whatever_a_class_raises_is_an_error_about_the_event(refusal: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Codec()
    data, _ = codec.encode(Picky())
    monkeypatch.setattr(Picky, "refusal", refusal)
    with pytest.raises(CorruptEvent, match=r"stream 's-1', version 4, position 9 cannot be read as codec.Picky: ") as raised:
        codec.decode(stored("codec.Picky", data), StreamId("s-1"))
    error = raised.value
    assert (error.stream_id, error.version, error.position, error.event_type) == ("s-1", 4, 9, "codec.Picky")
    assert refusal in (error.__cause__, getattr(error.__cause__, "__cause__", None))


def test_a_class_that_refuses_its_own_values_refuses_the_event() -> None:
    event = Picky()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Picky, "refusal", LookupError("no"))
        with pytest.raises(InvalidEvent, match="its class cannot be written as JSON and read back: LookupError: no"):
            Codec().encode(event)


def test_corrupt_metadata_is_named_with_its_place() -> None:
    with pytest.raises(CorruptEvent, match="position 9: its metadata cannot be read"):
        Codec().decode(stored("codec.Loose", b'{"value":1}', '{"headers":7}'), StreamId("s-1"))


def test_fields_that_a_later_version_stored_are_ignored() -> None:
    event = Codec().decode(stored("codec.Loose", b'{"value":1,"more":2}', '{"tenant":"x"}'), StreamId("s-1"))
    assert (event.data, event.metadata) == (Loose(value=1), EventMetadata())


@given(
    st.dictionaries(
        st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=0, max_size=20), st.text(max_size=30)
    )
)
def test_headers_are_accepted_exactly_when_they_read_back(headers: dict[str, str]) -> None:
    codec = Codec()
    try:
        checked = check_headers(headers)
    except InvalidMetadata:
        assert len(headers) > 32 or any(not text.isprintable() for item in headers.items() for text in item)
        return
    metadata = codec.encode_metadata(EventMetadata(headers=checked)).decode()
    assert codec.decode(stored("codec.Loose", b'{"value":1}', metadata), StreamId("s-1")).metadata.headers == headers


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ([("a", "b")], "headers are a mapping of str to str, not list"),
        ({"a": 7}, "header 'a' is of type int; expected str"),
        ({7: "a"}, "the key 7 of headers is of type int"),
        ({"a" * 129: ""}, "has 129 characters; at most 128"),
        ({"a": "b" * 1025}, "header 'a' has 1025 characters; at most 1024"),
        ({"a": "b\nc"}, r"header 'a' has '\\n' at index 1"),
        ({str(number): "" for number in range(33)}, "33 headers; at most 32"),
    ],
)
def test_headers_that_cannot_be_stored_are_refused(headers: Any, problem: str) -> None:
    with pytest.raises(InvalidMetadata, match=problem):
        check_headers(headers)


@pytest.mark.parametrize("value", ["", "x" * 129, "a\0", "\ud800", 7])
def test_an_id_that_cannot_be_stored_is_refused(value: Any) -> None:
    with pytest.raises(InvalidMetadata, match="correlation_id"):
        check_id("correlation_id", value)


class _Prepared(Event):
    event_type: ClassVar[str] = "codec.Prepared"
    body: msgspec.Raw


def test_no_control_character_stands_in_what_is_stored() -> None:
    """A store may therefore use control characters as separators."""
    with pytest.raises(InvalidEvent):
        Codec().encode(_Prepared(body=msgspec.Raw(b'"a\x1fb"')))
    data, _ = Codec().encode(_Prepared(body=msgspec.Raw(b'"a\\u001fb"')))
    assert b"\x1f" not in data
