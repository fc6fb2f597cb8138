"""Checks and converts settings against type annotations. A fault names source, key and expectation, and never a secret."""

from __future__ import annotations

import collections.abc
import enum
import inspect
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import inspect as shapes

from eventcore.errors import Fault
from eventcore.exporting.configuration.sources import Settings, below, names_in, nested, source_of
from eventcore.exporting.context import Secret
from eventcore.ground import did_you_mean

_MAPPINGS: Final = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_TABLES: Final = (shapes.DictType, shapes.StructType, shapes.TypedDictType, shapes.DataclassType)
_CONTAINERS: Final = (*_TABLES, shapes.CollectionType, shapes.TupleType, shapes.NamedTupleType)
_FROM_TEXT: Final = (Secret, Path)

_DURATION: Final = "a duration (a number of seconds, or a text such as 'PT1M30S' or 'P1D')"

_LIMITS: Final = {
    "gt": "> {}",
    "ge": ">= {}",
    "lt": "< {}",
    "le": "<= {}",
    "multiple_of": "a multiple of {}",
    "pattern": "matching {}",
    "min_length": "of at least {} items or characters",
    "max_length": "of at most {} items or characters",
}

StructT = TypeVar("StructT", bound=msgspec.Struct)


def convert_struct(struct: type[StructT], settings: Settings, key: str, faults: list[Fault]) -> StructT:
    """Convert a table to a struct. Missing and faulty values get the struct's defaults; faults are added to ``faults``."""
    values, found = convert_fields(typing.get_type_hints(struct, include_extras=True), settings, key)
    faults += found
    return struct(**values)


def convert_fields(annotations: Mapping[str, Any], settings: Settings, key: str) -> tuple[dict[str, Any], list[Fault]]:
    """Convert each value of a table separately, so that every fault is found; unknown names are faults, too.

    Args:
        annotations: the types of the values by name.
        settings: the table, with paths that begin at it.
        key: the dotted key of the table.
    """
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    for name in names_in(settings):
        if name not in annotations:
            faults.append(unknown_key(below(settings, name), f"{key}.{name}", name, annotations))
            continue
        value, found = convert(annotations[name], below(settings, name), f"{key}.{name}")
        faults += found
        if not found:
            values[name] = value
    return values, faults


def convert(annotation: Any, settings: Settings, key: str) -> tuple[Any, list[Fault]]:
    """Convert a value, or a table, to ``annotation``; of a mapping, each value separately.

    Returns the converted value and its faults. Use the value only when there is no fault.
    """
    keys = {path: setting for path, setting in settings.items() if path}
    single = settings.get(())
    if keys and single is not None and not single.is_table:
        # A higher source gives keys of a table in place of a lower source's value. The keys count, but the value is checked.
        _, faults = convert(annotation, {(): single}, key)
        if faults:
            return None, faults
    settings = keys or settings
    item_type = table_type(annotation)
    if item_type is not None and (keys or (single is not None and single.is_table)):
        items = {name: convert(item_type, below(settings, name), f"{key}.{name}") for name in names_in(keys)}
        return {name: value for name, (value, _) in items.items()}, [fault for _, found in items.values() for fault in found]
    value = nested({path: setting.value for path, setting in settings.items()})
    text = any(setting.text for setting in settings.values())
    showable = not is_secret(annotation) and not any(setting.private for setting in settings.values())
    try:
        if text and isinstance(value, str):
            value = _from_text(annotation, value)
        elif type(value) in (int, float) and _takes_seconds(annotation):
            value = timedelta(seconds=value)
        return msgspec.convert(value, annotation, strict=not text, dec_hook=_decode), []
    except (msgspec.ValidationError, NotImplementedError, TypeError, ValueError, OverflowError, RecursionError) as error:
        # msgspec's message is added only when it is about a part of the value: for the whole value it repeats `describe`.
        inside = showable and isinstance(error, msgspec.ValidationError) and "`$" in str(error)
        detail = f" ({error})" if inside else ""
    # The fault is made outside the handler, so that no chained exception repeats a secret.
    example = _example(annotation) if single is not None and single.text else ""
    problem = f"expected {describe(annotation)}{example}, got {_described(value, showable=showable)}{detail}"
    return None, [Fault(*source_of(settings, key), problem)]


def unknown_key(settings: Settings, key: str, name: str, names: Iterable[str]) -> Fault:
    """The fault of a key that is none of ``names``."""
    listed = list(names)
    expected = f"expected one of {', '.join(listed)}" if listed else "nothing can be set here"
    return Fault(*source_of(settings, key), f"unknown key {name!r}{did_you_mean(name, listed)}; {expected}")


def is_secret(annotation: Any) -> bool:
    """Whether a value of this type is, or contains, a ``Secret``."""
    return any(isinstance(shape, shapes.CustomType) and shape.cls is Secret for shape in _shapes(annotation))


def is_configurable(annotation: Any) -> bool:
    """Whether configuration can hold a value of this type; if not, only code can pass one."""
    try:
        return all(not isinstance(shape, shapes.CustomType) or shape.cls in _FROM_TEXT for shape in _shapes(annotation))
    except TypeError:
        return False


def table_type(annotation: Any) -> Any:
    """The type of the values of ``dict[str, X]`` or another mapping, also if optional; ``None`` for other annotations."""
    candidates = [part for part in _union_parts(annotation) if part is not types.NoneType]
    if len(candidates) != 1 or get_origin(candidates[0]) not in _MAPPINGS:
        return None
    key_type, value_type = get_args(candidates[0])
    return value_type if key_type is str else None


def describe(annotation: Any) -> str:
    """An annotation as text for messages: ``int >= 1``, ``one of 'a', 'b'``, and how to write a ``timedelta``.

    >>> describe(Annotated[int, msgspec.Meta(ge=1, le=9)]), describe(Literal["a", "b"] | None), describe(dict[str, Secret])
    ('int >= 1 and <= 9', "one of 'a', 'b' | None", 'dict[str, str]')
    """
    if len(parts := _union_parts(annotation)) > 1:
        return " | ".join(map(describe, parts))
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        limits = [limit for meta in arguments[1:] if isinstance(meta, msgspec.Meta) for limit in _limits(meta)]
        return " ".join([describe(arguments[0]), " and ".join(limits)]).strip()
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        origin, arguments = Literal, tuple(member.value for member in annotation)
    if origin is Literal:
        return ("one of " if len(arguments) > 1 else "") + ", ".join(map(repr, arguments))
    if annotation is timedelta:
        return _DURATION
    if annotation in (Secret, Path):
        return "str"
    if annotation is types.NoneType:
        return "None"
    if origin is not None and arguments and isinstance(origin, type):
        inner = ", ".join("..." if argument is ... else describe(argument) for argument in arguments)
        return f"{origin.__name__}[{inner}]"
    return annotation.__name__ if isinstance(annotation, type) else inspect.formatannotation(annotation)


def _limits(meta: msgspec.Meta) -> list[str]:
    return [words.format(limit) for name, words in _LIMITS.items() if (limit := getattr(meta, name)) is not None]


def _from_text(annotation: Any, text: str) -> Any:
    """The list or table that a text of the environment holds as a TOML value; else the text itself."""
    if text.lstrip()[:1] not in ("[", "{") or not any(isinstance(shape, _CONTAINERS) for shape in _alternatives(annotation)):
        return text
    import tomllib  # takes milliseconds, and few processes need it

    try:
        document = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    # A second key means that more TOML follows after the value.
    return document["value"] if len(document) == 1 else text


def _takes_seconds(annotation: Any) -> bool:
    """Whether a number stands for a duration: the annotation takes a ``timedelta``, and no number."""
    kinds = {type(shape) for shape in _alternatives(annotation)}
    return shapes.TimeDeltaType in kinds and kinds.isdisjoint((shapes.IntType, shapes.FloatType, shapes.AnyType))


def _example(annotation: Any) -> str:
    """How to write a value of this annotation in an environment variable."""
    alternatives = list(_alternatives(annotation))
    if any(isinstance(shape, _TABLES) for shape in alternatives):
        return ' as a TOML value, for example {name = "value"}'
    if any(isinstance(shape, _CONTAINERS) for shape in alternatives):
        return ' as a TOML value, for example ["a", "b"]'
    return " (true or false)" if any(isinstance(shape, shapes.BoolType) for shape in alternatives) else ""


def _described(value: Any, *, showable: bool) -> str:
    if isinstance(value, dict):
        return "a table"
    if showable:
        return f"{value!r:.80}"
    return "a text that is not shown" if isinstance(value, str) else f"{type(value).__name__} (not shown)"


def _decode(target: Any, value: Any) -> Any:
    if isinstance(value, target):
        return value
    if target in _FROM_TEXT:
        if isinstance(value, str):
            return target(value)
        raise TypeError("not a text")
    raise NotImplementedError(f"{target} cannot be set from configuration")


def _union_parts(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _alternatives(annotation: Any) -> Iterator[shapes.Type]:
    """The types of which a value may be one, without what is inside them."""
    pending: list[shapes.Type] = [shapes.type_info(annotation)]
    while pending:
        shape = pending.pop()
        if isinstance(shape, shapes.UnionType):
            pending += shape.types
        elif isinstance(shape, shapes.Metadata):
            pending.append(shape.type)
        else:
            yield shape


def _shapes(annotation: Any) -> Iterator[shapes.Type]:
    """The type and every type inside it, such as those of items and fields."""
    pending: list[Any] = [shapes.type_info(annotation)]
    seen: set[int] = set()
    while pending:
        shape = pending.pop()
        # A type may contain itself, and a field of a shape may be no shape, for example a class or a number.
        if not isinstance(shape, msgspec.Struct) or id(shape) in seen:
            continue
        seen.add(id(shape))
        if isinstance(shape, shapes.Type):
            yield shape
        for name in shape.__struct_fields__:
            inner = getattr(shape, name)
            pending += inner if isinstance(inner, tuple) else [inner]
