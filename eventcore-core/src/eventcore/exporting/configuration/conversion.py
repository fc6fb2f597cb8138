"""Converting one setting to its annotation, with faults that say where and what, and that never repeat a secret."""

from __future__ import annotations

import collections.abc
import difflib
import inspect
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, final, get_args, get_origin

import msgspec
from msgspec import inspect as shapes

from eventcore.errors import Fault
from eventcore.exporting.configuration.sources import ENVIRONMENT, Setting, Tree, place, plain, settings_in
from eventcore.exporting.context import Secret

_MAPPINGS: Final = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_CONTAINERS: Final = (
    shapes.ListType,
    shapes.SetType,
    shapes.FrozenSetType,
    shapes.VarTupleType,
    shapes.TupleType,
    shapes.DictType,
    shapes.StructType,
    shapes.TypedDictType,
    shapes.DataclassType,
    shapes.NamedTupleType,
)
_FROM_TEXT: Final = (Secret, Path)


@final
class _RefusedError(Exception):
    """A value does not fit; the message is for people."""


def convert(annotation: Any, node: Setting | Tree, key: str) -> tuple[Any, list[Fault]]:
    """Convert a value, or a table of values each on its own, to ``annotation``.

    Returns the value and what is wrong with it; the value counts only when nothing is. ``key`` is the dotted key of a table.
    """
    item_type = table_type(annotation)
    if isinstance(node, dict) and item_type is not None:
        items: dict[str, Any] = {}
        faults: list[Fault] = []
        for name, child in node.items():
            items[name], found = convert(item_type, child, f"{key}.{name}")
            faults += found
        return items, faults
    try:
        return _convert_value(annotation, node), []
    except _RefusedError as error:
        return None, [Fault(*place(node, key), str(error))]


def convert_fields(annotations: Mapping[str, Any], tree: Tree, key: str) -> tuple[dict[str, Any], list[Fault]]:
    """Convert each value of a table on its own; names that ``annotations`` does not have are faults."""
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    for name, node in tree.items():
        if name not in annotations:
            faults.append(unknown_key(node, f"{key}.{name}", name, annotations))
            continue
        value, found = convert(annotations[name], node, f"{key}.{name}")
        faults += found
        if not found:
            values[name] = value
    return values, faults


def unknown_key(node: Setting | Tree, key: str, name: str, names: Iterable[str]) -> Fault:
    """The fault of a key that is none of ``names``."""
    known = list(names)
    expected = f"expected one of {', '.join(known)}" if known else "nothing can be set here"
    return Fault(*place(node, key), f"unknown key {name!r}{suggest(name, known)}; {expected}")


def suggest(name: str, names: Iterable[str]) -> str:
    """A hint at the nearest of some names, or nothing."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def is_secret(annotation: Any) -> bool:
    """Whether a value of this annotation holds a ``Secret`` anywhere."""
    return any(isinstance(shape, shapes.CustomType) and shape.cls is Secret for shape in _shapes(annotation))


def is_configurable(annotation: Any) -> bool:
    """Whether a value of this annotation can come from configuration."""
    try:
        return all(not isinstance(shape, shapes.CustomType) or shape.cls in _FROM_TEXT for shape in _shapes(annotation))
    except TypeError:
        return False


def table_type(annotation: Any) -> Any:
    """The type of the values of a mapping with names as keys, also of an optional one; ``None`` for everything else."""
    candidates = [part for part in _union_parts(annotation) if part is not types.NoneType]
    if len(candidates) != 1 or get_origin(candidates[0]) not in _MAPPINGS:
        return None
    key_type, value_type = get_args(candidates[0])
    return value_type if key_type is str else None


def describe(annotation: Any) -> str:
    """An annotation in the words of its values: ``int >= 1``, ``one of 'a', 'b'``.

    >>> describe(Annotated[int, msgspec.Meta(ge=1, le=9)]), describe(Literal["a", "b"] | None), describe(dict[str, Secret])
    ('int >= 1 and <= 9', "one of 'a', 'b' | None", 'dict[str, str]')
    """
    if len(parts := _union_parts(annotation)) > 1:
        return " | ".join(map(describe, parts))
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        limits = [limit for meta in arguments[1:] if isinstance(meta, msgspec.Meta) for limit in _limits(meta)]
        return " ".join([describe(arguments[0]), " and ".join(limits)]).strip()
    if origin is Literal:
        return ("one of " if len(arguments) > 1 else "") + ", ".join(map(repr, arguments))
    if annotation in (Secret, Path):
        return "str"
    if annotation is types.NoneType:
        return "None"
    if origin is not None and arguments and isinstance(origin, type):
        inner = ", ".join("..." if argument is ... else describe(argument) for argument in arguments)
        return f"{origin.__name__}[{inner}]"
    return annotation.__name__ if isinstance(annotation, type) else inspect.formatannotation(annotation)


def _limits(meta: msgspec.Meta) -> Iterator[str]:
    for name, words in {
        "gt": ">",
        "ge": ">=",
        "lt": "<",
        "le": "<=",
        "multiple_of": "a multiple of",
        "pattern": "matching",
    }.items():
        if (limit := getattr(meta, name)) is not None:
            yield f"{words} {limit}"
    for name, words in {"min_length": "at least", "max_length": "at most"}.items():
        if (limit := getattr(meta, name)) is not None:
            yield f"of {words} {limit} items or characters"


def _convert_value(annotation: Any, node: Setting | Tree) -> Any:
    value = plain(node)
    text = any(setting.text for setting in settings_in(node))
    try:
        if text and isinstance(value, str):
            value = _from_text(annotation, value)
        return msgspec.convert(value, annotation, strict=not text, dec_hook=_decode)
    except (msgspec.ValidationError, NotImplementedError, TypeError, ValueError, RecursionError) as error:
        detail = _detail(error) if _may_be_shown(annotation, node) else ""
    # Outside the handler and without a cause: a chained message could repeat a secret.
    raise _RefusedError(f"expected {describe(annotation)}{_example(annotation, node)}, got {_got(annotation, node)}{detail}")


def _from_text(annotation: Any, text: str) -> Any:
    tops = list(_top_shapes(shapes.type_info(annotation)))
    if text.lstrip()[:1] not in ("[", "{") or not any(isinstance(shape, _CONTAINERS) for shape in tops):
        return text
    try:
        document = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    # More than one key means that the text went on after the value.
    return document["value"] if len(document) == 1 else text


def _example(annotation: Any, node: Setting | Tree) -> str:
    if not isinstance(node, Setting) or not node.text:
        return ""
    tops = list(_top_shapes(shapes.type_info(annotation)))
    if any(
        isinstance(shape, shapes.DictType | shapes.StructType | shapes.TypedDictType | shapes.DataclassType) for shape in tops
    ):
        return ' as a TOML value, for example {name = "value"}'
    if any(isinstance(shape, _CONTAINERS) for shape in tops):
        return ' as a TOML value, for example ["a", "b"]'
    return " (true or false)" if any(isinstance(shape, shapes.BoolType) for shape in tops) else ""


def _got(annotation: Any, node: Setting | Tree) -> str:
    value = plain(node)
    if isinstance(value, dict):
        return "a table"
    if not _may_be_shown(annotation, node):
        return "a text that is not shown" if isinstance(value, str) else f"{type(value).__name__} (not shown)"
    return f"{value!r:.80}"


def _may_be_shown(annotation: Any, node: Setting | Tree) -> bool:
    return not is_secret(annotation) and not any(
        setting.private or setting.where == ENVIRONMENT for setting in settings_in(node)
    )


def _detail(error: Exception) -> str:
    # Only where msgspec says something about the inside of a value: the rest is in the description of the annotation.
    return f" ({error})" if isinstance(error, msgspec.ValidationError) and "`$" in str(error) else ""


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


def _top_shapes(shape: shapes.Type) -> Iterator[shapes.Type]:
    if isinstance(shape, shapes.UnionType):
        for part in shape.types:
            yield from _top_shapes(part)
    elif isinstance(shape, shapes.Metadata):
        yield from _top_shapes(shape.type)
    else:
        yield shape


def _shapes(annotation: Any) -> Iterator[shapes.Type]:
    """The shape of an annotation with everything inside it."""
    pending: list[Any] = [shapes.type_info(annotation)]
    seen: set[int] = set()
    while pending:
        shape = pending.pop()
        if id(shape) in seen:
            continue
        seen.add(id(shape))
        if isinstance(shape, shapes.Type):
            yield shape
        if isinstance(shape, msgspec.Struct) and not isinstance(
            shape, shapes.CustomType | shapes.LiteralType | shapes.EnumType
        ):
            for name in shape.__struct_fields__:
                inner = getattr(shape, name)
                pending += inner if isinstance(inner, tuple) else [inner]


def annotations_of(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """The fields of a struct with their annotations, limits included."""
    return typing.get_type_hints(struct, include_extras=True)
