"""Whether an event and the event read back from its JSON say the same."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Set
from typing import Any

import msgspec

from eventcore.ground import dataclass_fields


def says_the_same(one: Any, other: Any) -> bool:
    """Whether two values are equal, where times with a time zone are compared in UTC.

    Python calls such times unequal in the hour that is repeated or skipped when clocks change, unless both have the same zone
    object. A time that was read back has an offset and no zone.
    """
    return bool(one == other) or _in_utc(one) == _in_utc(other)


def _in_utc(value: Any) -> Any:
    """A value that can be compared, with every time inside it in UTC."""
    if isinstance(value, dt.datetime):
        return value if value.utcoffset() is None else value.astimezone(dt.UTC)
    if (names := _field_names(value)) is not None:
        return type(value), [_in_utc(getattr(value, name)) for name in names]
    # `issubclass`, since `isinstance` would make type checkers forget that the values inside have any type.
    kind: Any = value.__class__
    if issubclass(kind, Mapping):
        return dict(zip(_frozen(_each(value)), _each(value.values()), strict=True))
    if issubclass(kind, tuple):
        return tuple(_each(value))
    if issubclass(kind, list):
        return list(_each(value))
    if issubclass(kind, Set):
        return frozenset(_frozen(_each(value)))
    return value


def _field_names(value: Any) -> Iterable[str] | None:
    """The names of the fields of a struct, a dataclass or a class of attrs; ``None`` for any other value."""
    if isinstance(value, msgspec.Struct):
        return value.__struct_fields__
    cls: Any = value.__class__
    if (fields := dataclass_fields(cls)) is not None:
        return [field.name for field in fields]
    attributes = getattr(cls, "__attrs_attrs__", None)
    return None if attributes is None else [attribute.name for attribute in attributes]


def _each(values: Iterable[Any]) -> Iterable[Any]:
    return map(_in_utc, values)


def _frozen(values: Iterable[Any]) -> Iterable[Any]:
    """Values that can stand in a set: ``_in_utc`` makes lists of what was hashable."""
    return [tuple(_frozen(value)) if issubclass(value.__class__, (tuple, list)) else value for value in values]
