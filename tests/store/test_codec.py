from __future__ import annotations

import datetime as dt
import enum
import math
import uuid
from decimal import Decimal
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventcore import Event, StreamId
from eventcore.errors import CorruptEvent, InvalidEvent, InvalidMetadata, UnknownEventType
from eventcore.events import EventMetadata
from eventcore.events.codec import Codec, StoredEvent, check_headers, check_id


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
    assert "codec.Everything" in text
    assert 'event_type: ClassVar[str] = "codec.Gone"' in text
    assert errors == [("decode", "codec.Gone")]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"value"', b"null", b"{}"])
def test_a_corrupt_event_is_named_with_its_place(data: bytes) -> None:
    with pytest.raises(CorruptEvent, match=r"stream 's-1', version 4, position 9 cannot be read as codec.Loose: ") as refusal:
        Codec().decode(stored("codec.Loose", data), StreamId("s-1"))
    assert isinstance(refusal.value.__cause__, msgspec.DecodeError)


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
