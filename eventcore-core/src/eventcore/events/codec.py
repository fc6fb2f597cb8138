"""The codec of one store: events and their metadata to JSON and back.

Everything that a store could refuse about an event is checked here, before the event joins a batch, because one bad event would
fail the whole batch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn, final

import msgspec

from eventcore.errors import CorruptEvent, InvalidEvent, InvalidEventType, InvalidMetadata, UnknownEventType
from eventcore.events.classes import Decode, class_of, decoder, has_mutable_values, is_known, known_types
from eventcore.events.comparing import says_the_same
from eventcore.events.event import Event, EventMetadata, RawEvent, RecordedEvent
from eventcore.events.stream_id import StreamId
from eventcore.ground import in_words, without_values

_MAX_HEADERS: Final = 32
_MAX_KEY: Final = 128
_MAX_TEXT: Final = 1024
# NUL and lone surrogates, which not every store can keep in text, and other control characters, which break headers.
_UNFIT: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
# An escaped NUL. Behind an odd number of backslashes the last one is escaped itself, and the match is plain text.
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_CODEC_ERRORS: Final = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


@final
class StoredEvent(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A row of the store that is not decoded yet: ``data`` and ``metadata`` are JSON."""

    position: int
    stream_id: str
    version: int
    event_id: str
    event_type: str
    data: str
    metadata: str
    recorded_at_ns: int


@final
class Codec:
    """Writes events as JSON and reads them back. It keeps one decoder for each class, made when the class is first used.

    Args:
        max_event_bytes: the largest event to accept, in bytes of JSON.
        on_error: called with the direction (``"encode"`` or ``"decode"``) and the event type, on each event that cannot be
            decoded or replaced, and by ``report``.
    """

    def __init__(self, max_event_bytes: int = 1 << 20, on_error: Callable[[str, str], None] | None = None) -> None:
        self._max_event_bytes = max_event_bytes
        self._failed = on_error or _ignore
        self._by_class: dict[type[Event], Decode] = {}
        self._by_type: dict[str, Decode] = {}
        # The classes whose instances may hold lists, dictionaries or other values that can be changed.
        self._mutable: set[type[Event]] = set()
        self._encode = msgspec.json.Encoder(enc_hook=write_stream_id).encode
        self._decode_metadata = msgspec.json.Decoder(EventMetadata).decode

    def encode(self, event: Event) -> tuple[bytes, Event]:
        """Return the JSON of an event, and the event as read back from that JSON.

        The twin is equal to the event and shares no object with it, so later changes by the caller cannot reach it.

        A command may be decided several times. So a failure is not counted here: ``report`` the one that the caller gets.

        Raises:
            InvalidEvent: the event would not read back equal (a field of another type than declared, NaN, an infinity, NUL, a
                lone surrogate, nested too deeply), or it is larger than allowed.
            InvalidEventType: another class has the type of the event, or msgspec cannot read the class.
        """
        decode = self._by_class.get(type(event)) or self._use(type(event), event)
        try:
            data = self._encode(event)
            twin = decode(data)
            # They are equal in the usual case, which needs no second look.
            same = twin == event or says_the_same(twin, event)
        except Exception as error:  # noqa: BLE001  # the class may have code of its own, which raises what it likes
            self._refuse(event, _explain(event, error), error)
        if not same:
            self._refuse(event, _explain_difference(event, twin))
        if len(data) > self._max_event_bytes:
            self._refuse(event, f"has {len(data)} bytes as JSON; at most {self._max_event_bytes} are allowed: split the event")
        if b"\\u0000" in data and _NUL.search(data):
            self._refuse(event, "holds the character U+0000, which not every store can keep: remove it")
        return data, twin

    def decode(self, row: StoredEvent, stream: StreamId) -> RecordedEvent:
        """Decode a row of ``stream``.

        Raises:
            UnknownEventType: no class in this process can be used for the event type.
            CorruptEvent: the JSON does not fit the class, or the metadata cannot be read.
        """
        event_type = row.event_type
        decode = self._by_type.get(event_type) or self._find(row, stream)
        try:
            data = decode(row.data)
        except (KeyboardInterrupt, MemoryError):
            raise
        except BaseException as error:
            # `BaseException`: code of the class runs here, in a task that serves other readers as well.
            # The error is shown in health and logs, which are no place for what the event contains.
            said = _text(without_values(error))
            raise self._corrupt(
                row,
                stream,
                f" cannot be read as {event_type}: {said}; the class may have changed since (give new fields a default), or "
                "the row was changed by hand",
            ) from error
        try:
            metadata = self._decode_metadata(row.metadata)
        except _CODEC_ERRORS as error:
            raise self._corrupt_metadata(row, stream, error) from error
        return RecordedEvent(stream, row.version, row.position, data, metadata, row.event_id, event_type, row.recorded_at_ns)

    def decode_or_raw(self, row: StoredEvent, stream: StreamId) -> RecordedEvent | RawEvent:
        """Like ``decode``, but an event whose type no class of this process has comes as plain values.

        Raises:
            UnknownEventType: classes of this process have the type, and none of them can be used.
            CorruptEvent: the JSON is none or does not fit the class, or the metadata cannot be read.
        """
        if row.event_type in self._by_type or is_known(row.event_type):
            return self.decode(row, stream)
        try:
            data = msgspec.json.decode(row.data)
        except _CODEC_ERRORS as error:
            raise self._corrupt(row, stream, f" is no JSON: {error}; the row was changed by hand") from error
        try:
            metadata = self._decode_metadata(row.metadata)
        except _CODEC_ERRORS as error:
            raise self._corrupt_metadata(row, stream, error) from error
        return RawEvent(stream, row.version, row.position, data, metadata, row.event_id, row.event_type, row.recorded_at_ns)

    def report(self, error: BaseException) -> None:
        """Count an error that the caller of a command gets, if it is one of ``encode``."""
        if isinstance(error, InvalidEvent) and error.event_type is not None:
            self._failed("encode", error.event_type)

    def uncounted(self) -> Codec:
        """A codec with the same decoders, whose failures are not counted: for events that are read again if they are needed."""
        twin = Codec()
        twin.__dict__.update({**self.__dict__, "_failed": _ignore})
        return twin

    @property
    def shares_all(self) -> bool:
        """Whether ``own_copy`` returns the event itself for every class in use, unless the event has headers."""
        return not self._mutable

    def own_copy(self, event: RecordedEvent, data: bytes) -> RecordedEvent:
        """An equal event that shares nothing that can be changed with ``event``, whose JSON is ``data``.

        It is ``event`` itself if that holds only values that cannot be changed.
        """
        if type(event.data) in self._mutable:
            event = msgspec.structs.replace(event, data=self._by_class[type(event.data)](data))
        if headers := event.metadata.headers:
            event = msgspec.structs.replace(event, metadata=msgspec.structs.replace(event.metadata, headers=headers.copy()))
        return event

    def replacement(self, row: StoredEvent, data: Event | Mapping[str, Any]) -> bytes:
        """The JSON of ``data``, which is to replace the data of ``row``: an event of its type, or the values of its fields.

        Raises:
            InvalidEvent: ``data`` could not be read back as an event of this type, or is larger than allowed.
            UnknownEventType: no class in this process has the event type.
        """
        event_type = row.event_type
        if isinstance(data, Event):
            if data.event_type != event_type:
                problem = f"is of type {event_type}, not {data.event_type}: a redaction keeps the type"
                raise InvalidEvent(f"{_address(row)} {problem}")
            return self._replaced(data)
        decode = self._by_type.get(event_type) or self._find(row, StreamId(row.stream_id))
        try:
            event = decode(self._encode(dict(data)))
        except Exception as error:
            # The class may have code of its own, which raises what it likes.
            self._failed("encode", event_type)
            raise InvalidEvent(f"{_address(row)} could not be read back as {event_type}: {_text(error)}") from error
        if unknown := set(data) - set(event.__struct_encode_fields__):
            raise InvalidEvent(
                f"{_address(row)}: {event_type} has no fields {sorted(unknown)}; expected some of "
                f"{list(event.__struct_encode_fields__)}"
            )
        return self._replaced(event)

    def _replaced(self, event: Event) -> bytes:
        try:
            return self.encode(event)[0]
        except InvalidEvent as error:
            self.report(error)
            raise

    def encode_metadata(self, metadata: EventMetadata) -> bytes:
        """The JSON of metadata whose headers and ids have been checked."""
        return self._encode(metadata)

    def _use(self, cls: type[Event], event: object = None) -> Decode:
        """Make the decoder of a class that is used for the first time; raises ``InvalidEventType``."""
        if not issubclass(cls, Event) or not cls.event_type:
            raise InvalidEvent(f"{event!r:.80} of type {cls.__qualname__} is no event: derive its class from eventcore.Event")
        # Also refuses a type that another class has.
        class_of(cls.event_type)
        decode = decoder(cls)
        if has_mutable_values(cls):
            self._mutable.add(cls)
        self._by_class[cls] = self._by_type[cls.event_type] = decode
        return decode

    def _find(self, row: StoredEvent, stream: StreamId) -> Decode:
        """The decoder for a type that is read for the first time; raises ``UnknownEventType``."""
        event_type = row.event_type
        try:
            if (cls := class_of(event_type)) is not None:
                return self._use(cls)
        except InvalidEventType as error:
            self._failed("decode", event_type)
            raise UnknownEventType(f"{_address(row)}: {error}", **_fields(row, stream)) from error
        self._failed("decode", event_type)
        raise UnknownEventType(
            f"{_address(row)}: no class of this process has the event type {event_type!r}; known are: {in_words(known_types())}"
            ". Import the module that defines it, or, if the class was renamed, give it "
            f'event_type: ClassVar[str] = "{event_type}"; unknown="raw" reads it as plain values',
            **_fields(row, stream),
        )

    def _corrupt(self, row: StoredEvent, stream: StreamId, problem: str) -> CorruptEvent:
        self._failed("decode", row.event_type)
        return CorruptEvent(f"{_address(row)}{problem}", **_fields(row, stream))

    def _corrupt_metadata(self, row: StoredEvent, stream: StreamId, error: Exception) -> CorruptEvent:
        return self._corrupt(row, stream, f": its metadata cannot be read: {error}; the row was changed by hand")

    @staticmethod
    def _refuse(event: Event, problem: str, cause: Exception | None = None) -> NoReturn:
        raise InvalidEvent(f"event {event.event_type}: {problem}", event_type=event.event_type) from cause


def _ignore(direction: str, event_type: str) -> None:
    """The default of ``on_error``."""


def write_stream_id(value: object) -> str:
    """The hook of encoders: a stream id as a text; msgspec writes no subclass of ``str`` by itself."""
    if isinstance(value, StreamId):
        return str(value)
    raise TypeError(f"values of type {type(value).__name__} have no form in JSON")


def _address(row: StoredEvent) -> str:
    return f"stream {str(row.stream_id)!r}, version {row.version}, position {row.position}"


def _fields(row: StoredEvent, stream: StreamId) -> dict[str, Any]:
    """The attributes of an error about a stored event."""
    return {"stream_id": stream, "version": row.version, "position": row.position, "event_type": row.event_type}


def _text(error: BaseException) -> str:
    """What an error says, at most 500 characters. The text of an application's exception may itself raise."""
    if isinstance(error, msgspec.MsgspecError):
        return str(error)
    try:
        return f"{type(error).__name__}: {str(error)[:500]}"
    except Exception:  # noqa: BLE001  # see above
        return type(error).__name__


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of the caller's headers.

    Raises:
        InvalidMetadata: there are more than 32 headers, a key has more than 128 or a value more than 1,024 characters, or one
            of them is not printable text.
    """
    if not isinstance(headers, Mapping):
        raise InvalidMetadata(f"headers are a mapping of str to str, not {type(headers).__name__}")
    if len(headers) > _MAX_HEADERS:
        raise InvalidMetadata(f"{len(headers)} headers; at most {_MAX_HEADERS} are allowed")
    for key, value in headers.items():
        _check_text(f"the key {key!r:.80} of headers", key, _MAX_KEY)
        _check_text(f"header {key!r}", value, _MAX_TEXT)
    return dict(headers)


def check_id(name: str, value: str | None) -> None:
    """Check a correlation or causation id; ``None`` means no id.

    Raises:
        InvalidMetadata: the id is not printable text of 1 to 128 characters.
    """
    if value is None:
        return
    _check_text(name, value, _MAX_KEY)
    if not value:
        raise InvalidMetadata(f"{name} is empty; leave it out or give 1 to {_MAX_KEY} characters")


def _check_text(what: str, text: object, limit: int) -> None:
    if not isinstance(text, str):
        raise InvalidMetadata(f"{what} is of type {type(text).__name__}; expected str")
    if len(text) > limit:
        raise InvalidMetadata(f"{what} has {len(text)} characters; at most {limit} are allowed")
    if found := _UNFIT.search(text):
        raise InvalidMetadata(f"{what} has {found.group()!r} at index {found.start()}; expected printable text")


def _explain(event: Event, error: Exception) -> str:
    """Say which field cannot be written; the encoder's message does not."""
    if isinstance(error, RecursionError):
        return "is nested too deeply to be read back; flatten it"
    if isinstance(error, msgspec.ValidationError):
        return f"would not read back: {error}"
    if not isinstance(error, _CODEC_ERRORS):
        return f"its class cannot be written as JSON and read back: {_text(error)}"
    for name in event.__struct_fields__:
        try:
            msgspec.json.encode(getattr(event, name), enc_hook=write_stream_id)
        except _CODEC_ERRORS as cause:
            return f"field {name!r} cannot be written as JSON: {cause}"
    return f"cannot be written as JSON: {error}"


def _explain_difference(event: Event, twin: Event) -> str:
    for name in event.__struct_fields__:
        written, read = getattr(event, name), getattr(twin, name)
        if not says_the_same(written, read):
            return (
                f"field {name!r} would not read back equal: {written!r:.80} becomes {read!r:.80}; expected a finite value of "
                "exactly the declared type"
            )
    return f"would not read back equal: {event!r:.80} becomes {twin!r:.80}"
