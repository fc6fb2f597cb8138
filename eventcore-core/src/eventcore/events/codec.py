"""The codec of one store: events and their metadata to JSON and back, with every fault found before it can reach a batch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, NoReturn, final

import msgspec

from eventcore.errors import CorruptEvent, InvalidEvent, InvalidMetadata, UnknownEventType
from eventcore.events.event import Event, EventMetadata, RecordedEvent, event_classes
from eventcore.events.stream_id import StreamId

_MAX_HEADERS: Final = 32
_MAX_KEY: Final = 128
_MAX_TEXT: Final = 1024
# What cannot be stored as text everywhere: NUL and lone surrogates. Other control characters have no place in a header.
_UNFIT: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
# An escape, and not the text of one, when the backslashes before it are even in number.
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_UNWRITABLE: Final = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


@final
class StoredEvent(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A row of the store, not yet decoded: ``data`` and ``metadata`` are JSON."""

    position: int
    stream_id: str
    version: int
    event_id: str
    event_type: str
    data: str
    metadata: str
    recorded_at_ns: int


class _Plan(NamedTuple):
    event_type: str
    decode: Callable[[str | bytes], Event]


@final
class Codec:
    """Writes events as JSON and reads them back; remembers the classes that it has met.

    Args:
        max_event_bytes: the largest event that is accepted, in bytes of JSON.
        on_error: told the direction (``"encode"`` or ``"decode"``) and the event type of each failure.
    """

    def __init__(self, max_event_bytes: int = 1 << 20, on_error: Callable[[str, str], None] | None = None) -> None:
        self._max_event_bytes = max_event_bytes
        self._on_error = on_error
        self._plans: dict[type[Event], _Plan] = {}
        self._decoders: dict[str, Callable[[str | bytes], Event]] = {}
        self._encode = msgspec.json.Encoder(enc_hook=_write).encode
        self._decode_metadata = msgspec.json.Decoder(EventMetadata).decode

    def encode(self, event: Event) -> tuple[bytes, Event]:
        """The JSON of an event, and the event as it reads back: equal, and sharing nothing with the caller's.

        Raises:
            InvalidEvent: it would not read back equal (a field of another type than declared, NaN, an infinity, NUL, a lone
                surrogate, too deep), or it is over the size limit.
        """
        plan = self._plans.get(type(event)) or self._plan(event)
        try:
            data = self._encode(event)
            twin = plan.decode(data)
        except _UNWRITABLE as error:
            self._refuse_event(plan, _explain(event, error), error)
        if twin != event:
            self._refuse_event(plan, _explain_difference(event, twin))
        if len(data) > self._max_event_bytes:
            self._refuse_event(
                plan, f"has {len(data)} bytes as JSON; at most {self._max_event_bytes} are allowed: split the event"
            )
        if b"\\u0000" in data and _NUL.search(data):
            self._refuse_event(plan, "holds the character U+0000, which not every store can keep: remove it")
        return data, twin

    def decode(self, row: StoredEvent, stream: StreamId) -> RecordedEvent:
        """The event that stands in ``row``, which belongs to ``stream``.

        Raises:
            UnknownEventType: no class of this process has its type.
            CorruptEvent: it is not what its class expects.
        """
        event_type = row.event_type
        decode = self._decoders.get(event_type) or self._resolve(row)
        try:
            data = decode(row.data)
        except _UNWRITABLE as error:
            self._failed("decode", event_type)
            raise CorruptEvent(
                f"{_place(row)} cannot be read as {event_type}: {error}; the class may have changed since (give new fields "
                "a default), or the row was changed by hand"
            ) from error
        try:
            metadata = self._decode_metadata(row.metadata)
        except _UNWRITABLE as error:
            self._failed("decode", event_type)
            raise CorruptEvent(f"{_place(row)}: its metadata cannot be read: {error}; the row was changed by hand") from error
        return RecordedEvent(stream, row.version, row.position, data, metadata, row.event_id, event_type, row.recorded_at_ns)

    def encode_metadata(self, metadata: EventMetadata) -> bytes:
        """The JSON of metadata that ``check_headers`` and ``check_id`` have passed."""
        return self._encode(metadata)

    def _plan(self, event: object) -> _Plan:
        cls = type(event)
        if not issubclass(cls, Event) or not cls.event_type:
            raise InvalidEvent(f"{event!r:.80} of type {cls.__qualname__} is no event: derive its class from eventcore.Event")
        decode: Callable[[str | bytes], Event] = msgspec.json.Decoder(cls, dec_hook=_read).decode
        plan = self._plans[cls] = _Plan(cls.event_type, decode)
        self._decoders[cls.event_type] = decode
        return plan

    def _resolve(self, row: StoredEvent) -> Callable[[str | bytes], Event]:
        event_type = row.event_type
        known = {cls.event_type: cls for cls in event_classes()}
        cls = known.get(event_type)
        if cls is None:
            self._failed("decode", event_type)
            names = ", ".join(sorted(known)[:20]) or "none"
            more = f" and {len(known) - 20} more" if len(known) > 20 else ""
            raise UnknownEventType(
                f"{_place(row)}: no class of this process has the event type {event_type!r}; known are: {names}{more}. Import "
                f'the module that defines it, or, if the class was renamed, give it event_type: ClassVar[str] = "{event_type}"'
            )
        decode: Callable[[str | bytes], Event] = msgspec.json.Decoder(cls, dec_hook=_read).decode
        self._decoders[event_type] = decode
        return decode

    def _refuse_event(self, plan: _Plan, problem: str, cause: Exception | None = None) -> NoReturn:
        self._failed("encode", plan.event_type)
        raise InvalidEvent(f"event {plan.event_type}: {problem}") from cause

    def _failed(self, direction: str, event_type: str) -> None:
        if self._on_error is not None:
            self._on_error(direction, event_type)


def _write(value: object) -> str:
    if isinstance(value, StreamId):
        return str(value)
    raise TypeError(f"values of type {type(value).__name__} have no form in JSON")


def _read(kind: type[Any], value: Any) -> Any:
    if kind is StreamId:
        return StreamId(value)
    raise TypeError(f"values of type {kind.__name__} have no form in JSON")


def _place(row: StoredEvent) -> str:
    return f"stream {str(row.stream_id)!r}, version {row.version}, position {row.position}"


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """A copy of the caller's headers.

    Raises:
        InvalidMetadata: more than 32 of them, a key over 128 or a value over 1,024 characters, or one that is no printable
            text.
    """
    if not isinstance(headers, Mapping):
        raise InvalidMetadata(f"headers are a mapping of str to str, not {type(headers).__name__}")
    if len(headers) > _MAX_HEADERS:
        raise InvalidMetadata(f"{len(headers)} headers; at most {_MAX_HEADERS} are allowed")
    for key, value in headers.items():
        _check_text(f"the key {key!r:.80} of headers", key, _MAX_KEY)
        _check_text(f"header {key!r}", value, _MAX_TEXT)
    return dict(headers)


def check_id(name: str, value: str) -> str:
    """A correlation or causation id as it was given.

    Raises:
        InvalidMetadata: it is not a printable text of 1 to 128 characters.
    """
    _check_text(name, value, _MAX_KEY)
    if not value:
        raise InvalidMetadata(f"{name} is empty; leave it out or give 1 to {_MAX_KEY} characters")
    return value


def _check_text(what: str, text: object, limit: int) -> None:
    if not isinstance(text, str):
        raise InvalidMetadata(f"{what} is of type {type(text).__name__}; expected str")
    if len(text) > limit:
        raise InvalidMetadata(f"{what} has {len(text)} characters; at most {limit} are allowed")
    if found := _UNFIT.search(text):
        raise InvalidMetadata(f"{what} has {found.group()!r} at index {found.start()}; expected printable text")


def _explain(event: Event, error: Exception) -> str:
    """Which field cannot be written, since the encoder's message does not say."""
    if isinstance(error, RecursionError):
        return "is nested too deeply to be read back; flatten it"
    if isinstance(error, msgspec.ValidationError):
        return f"would not read back: {error}"
    for name in event.__struct_fields__:
        try:
            msgspec.json.encode(getattr(event, name), enc_hook=_write)
        except _UNWRITABLE as cause:
            return f"field {name!r} cannot be written as JSON: {cause}"
    return f"cannot be written as JSON: {error}"


def _explain_difference(event: Event, twin: Event) -> str:
    for name in event.__struct_fields__:
        written, read = getattr(event, name), getattr(twin, name)
        if written != read:
            return (
                f"field {name!r} would not read back equal: {written!r:.80} becomes {read!r:.80}; expected a finite value of "
                "exactly the declared type"
            )
    return f"would not read back equal: {event!r:.80} becomes {twin!r:.80}"
