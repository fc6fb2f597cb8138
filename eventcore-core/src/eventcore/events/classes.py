"""Event classes: which class has which stored type, and whether msgspec can read a class back."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, ClassVar, Final, Literal, TypeAlias, get_origin, get_type_hints
from weakref import ref

import msgspec
from msgspec import inspect

from eventcore.errors import InvalidEventType, InvalidInput
from eventcore.events.stream_id import StreamId
from eventcore.ground import did_you_mean, in_words

_IMMUTABLE: Final = (
    inspect.NoneType,
    inspect.BoolType,
    inspect.IntType,
    inspect.FloatType,
    inspect.StrType,
    inspect.BytesType,
    inspect.DateTimeType,
    inspect.TimeType,
    inspect.DateType,
    inspect.TimeDeltaType,
    inspect.UUIDType,
    inspect.DecimalType,
    inspect.EnumType,
    inspect.LiteralType,
    inspect.RawType,
    inspect.CustomType,  # only `StreamId` is allowed
)
# Immutable if what they hold is.
_IMMUTABLE_AROUND: Final = (
    inspect.UnionType,
    inspect.FrozenSetType,
    inspect.VarTupleType,
    inspect.TupleType,
    inspect.NamedTupleType,
)
# Not allowed as keys of a dictionary.
_NO_KEYS: Final = (
    inspect.ListType,
    inspect.VarTupleType,
    inspect.TupleType,
    inspect.SetType,
    inspect.FrozenSetType,
    inspect.DictType,
    inspect.StructType,
    inspect.DataclassType,
    inspect.TypedDictType,
    inspect.NamedTupleType,
)

Decode: TypeAlias = Callable[[str | bytes], Any]
Unknown: TypeAlias = Literal["error", "raw"]
"""What to do with an event whose type no class of this process has: raise ``UnknownEventType``, or give a ``RawEvent``."""

_EVENT_TYPE: Final = re.compile(r"[^\s\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,255}")

# Every event class by its stored type, oldest first. A class that no longer exists leaves a dead reference.
_classes: Final[dict[str, list[ref[type[Any]]]]] = {}


def add_class(cls: type[Any], event_type: str) -> None:
    """Remember a class, which may have the same stored type as others."""
    _classes[event_type] = [*(ref(other) for other in _existing(event_type)), ref(cls)]


def class_of(event_type: str) -> type[Any] | None:
    """The class with a stored type; ``None`` if this process has none.

    Of several definitions of one class, as a reload makes them, it is the newest.

    Raises:
        InvalidEventType: different classes have the type.
    """
    found = _existing(event_type)
    if len(set(map(class_name, found))) > 1:
        # The others may be unreachable, and only waiting for the garbage collector.
        del found
        gc.collect()
        found = _existing(event_type)
        if len(names := sorted(set(map(class_name, found)))) > 1:
            raise InvalidEventType(
                f"the event type {event_type!r} belongs to {' and to '.join(names)}; give all but one of them another: "
                'event_type: ClassVar[str] = "…"'
            )
    return found[-1] if found else None


def is_known(event_type: str) -> bool:
    """Whether a class of this process has the stored type."""
    return bool(_existing(event_type))


def known_types() -> list[str]:
    """The stored types of all event classes, sorted."""
    return sorted(event_type for event_type in _classes if _existing(event_type))


def _existing(event_type: str) -> list[type[Any]]:
    return [cls for reference in _classes.get(event_type, ()) if (cls := reference()) is not None]


def is_event_type(text: str) -> bool:
    """Whether a text can be the stored type of an event."""
    return _EVENT_TYPE.fullmatch(text) is not None


def stored_types(kinds: Any, *, unknown: Unknown) -> tuple[str, ...]:
    """The stored types of a collection of event classes and stored types, in order.

    Args:
        kinds: the classes and types.
        unknown: with ``"error"``, an event of a type that no class has could not be given, so such a type is refused. With
            ``"raw"``, a type need only be one that an event can have.

    Raises:
        InvalidInput: ``kinds`` is a single one, or holds something else.
    """
    if not isinstance(kinds, (str, type)):
        with suppress(TypeError):
            return tuple(_stored_type(kind, unknown) for kind in iter(kinds))
    one = kinds.__name__ if isinstance(kinds, type) else repr(kinds)
    raise InvalidInput(
        f"event_types is {kinds!r:.80}; expected a sequence of event classes or stored types, for example ({one:.80},)"
    )


def _stored_type(kind: Any, unknown: Unknown) -> str:
    # An event class has a type; the class `Event` itself has none. Another class may have an attribute of this name.
    event_type = getattr(kind, "event_type", "") if isinstance(kind, type) else kind
    if not isinstance(event_type, str) or not event_type or (kind is not event_type and kind not in _existing(event_type)):
        raise InvalidInput(f"event_types has {kind!r:.80}; expected event classes or stored types")
    if not is_event_type(event_type):
        raise InvalidInput(
            f"event_types has {kind!r:.80}, which no event can have; expected event classes or stored types, of 1 to 255 "
            "characters without white space"
        )
    if unknown == "error" and not is_known(event_type):
        known = known_types()
        raise InvalidInput(
            f"event_types has {kind!r:.80}, which is the type of no event class of this process; known are: "
            f"{in_words(known)}{did_you_mean(event_type, known) or '.'} Import the module that defines the class"
            ', or read such events as plain values: unknown="raw"'
        )
    return event_type


def class_name(cls: type[Any]) -> str:
    """The full name of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def check_fields(cls: type[Any]) -> None:
    """Check the annotations of an event class while it is defined. (msgspec looks at them when the class is complete.)

    An annotation may name a class that is defined later: ``decoder`` then checks it when the class is first used.

    Raises:
        InvalidEventType: msgspec cannot decode a field; the message says why.
    """
    try:
        hints = get_type_hints(cls, include_extras=True)
    except (NameError, AttributeError):
        return
    except Exception as error:
        raise InvalidEventType(f"{class_name(cls)}: its annotations cannot be read: {error}") from error
    for name, hint in hints.items():
        if hint is not ClassVar and get_origin(hint) is not ClassVar:
            with suppress(NameError, AttributeError):
                _decoder(hint, f"{class_name(cls)}: the field {name!r}")


def decoder(cls: type[Any]) -> Decode:
    """The function that makes instances of ``cls`` from JSON.

    Raises:
        InvalidEventType: msgspec cannot decode the class, or an annotation names something that does not exist.
    """
    try:
        return _decoder(cls, class_name(cls))
    except (NameError, AttributeError) as error:
        raise InvalidEventType(
            f"{class_name(cls)}: its annotations cannot be resolved ({error}); define or import the names beside the class"
        ) from error


def _decoder(kind: Any, what: str) -> Decode:
    try:
        decode: Decode = msgspec.json.Decoder(kind, dec_hook=read_stream_id).decode
        problem = next((found for one in _walk(inspect.type_info(kind)) if (found := _problem(one))), "")
    except (NameError, AttributeError):
        raise
    except Exception as error:
        raise InvalidEventType(f"{what} cannot be read from JSON: {error}") from error
    if problem:
        raise InvalidEventType(f"{what} cannot be read from JSON: {problem}")
    return decode


def _problem(kind: inspect.Type) -> str:
    """Why a type that msgspec accepts cannot be read from JSON after all; empty if it can."""
    match kind:
        case inspect.CustomType(cls=cls):
            return (
                f"it holds {class_name(cls)}, which has no form in JSON; derive that class from msgspec.Struct, or make it a "
                "dataclass"
            )
        case inspect.ExtType():
            return "it holds msgpack.Ext, which has no form in JSON"
        case inspect.DictType(key_type=key) if isinstance(key, _NO_KEYS):
            return "it has a dictionary whose keys cannot be a text in JSON; give it keys that are texts, numbers, times or ids"
        case _:
            return ""


def has_mutable_values(cls: type[Any]) -> bool:
    """Whether an instance of an event class may hold something that can be changed: a list, a dictionary, an open struct."""
    return not all(map(_is_immutable, _walk(inspect.type_info(cls))))


def _is_immutable(kind: inspect.Type) -> bool:
    match kind:
        case inspect.StructType(cls=cls):
            return bool(cls.__struct_config__.frozen)
        case inspect.DataclassType(cls=cls):
            parameters = getattr(cls, "__dataclass_params__", None)
            return parameters is not None and bool(parameters.frozen)
        case _:
            return isinstance(kind, (*_IMMUTABLE, *_IMMUTABLE_AROUND))


def _walk(kind: inspect.Type) -> Iterator[inspect.Type]:
    """A type and every type inside it, each once: types may be recursive."""
    seen: set[int] = set()
    queue = [kind]
    while queue:
        kind = queue.pop()
        if id(kind) in seen:
            continue
        seen.add(id(kind))
        if not (isinstance(kind, inspect.CustomType) and kind.cls is StreamId):
            yield kind
        match kind:
            case inspect.UnionType(types=types):
                queue += types
            case inspect.TupleType(item_types=types):
                queue += types
            case inspect.DictType(key_type=key, value_type=value):
                queue += (key, value)
            case inspect.ListType() | inspect.VarTupleType() | inspect.SetType() | inspect.FrozenSetType():
                queue.append(kind.item_type)
            case inspect.StructType() | inspect.DataclassType() | inspect.TypedDictType() | inspect.NamedTupleType():
                queue += [field.type for field in kind.fields]
            case _:
                pass


def read_stream_id(kind: type[Any], value: Any) -> Any:
    """The hook of decoders: a text as a stream id, which is validated."""
    if kind is StreamId:
        return StreamId(value)
    raise TypeError(f"values of type {kind.__name__} have no form in JSON")
