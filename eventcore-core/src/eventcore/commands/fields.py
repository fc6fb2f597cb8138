"""Which fields of a command name streams, judged by their annotations.

The streams of a command are its consistency boundary, so no field may hide one. An annotation that contains ``StreamId`` is
either understood, whatever alias, union or collection it stands in, or refused.
"""

from __future__ import annotations

import collections.abc
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    ForwardRef,
    NewType,
    TypeAlias,
    TypeVar,
    Union,
    cast,
    final,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import msgspec

from eventcore.errors import InvalidCommand
from eventcore.events import StreamId, StreamState

EVENTS: Final = "events"
VERSION: Final = "version"

Need: TypeAlias = str | type[StreamState]
"""What a command needs of a stream: its ``EVENTS``, its ``VERSION`` alone, or its state of a class."""

Needs: TypeAlias = Mapping[StreamId, Need]

StateType: TypeAlias = type[StreamState] | None
"""The class of the state of a stream; ``None``: the stream is checked, and not folded on its own."""

EXPECTED: Final = "StreamId, StreamId | None, or a tuple, list, set or frozenset of StreamId"

_COLLECTIONS: Final = (tuple, list, set, frozenset, collections.abc.Sequence, collections.abc.Set)
_UNIONS: Final = (Union, types.UnionType)


@final
class StreamField(msgspec.Struct, frozen=True):
    """A field that names streams.

    Attributes:
        exactly_one: whether it holds one stream, rather than none or several.
        state_type: the class of the states of its streams, given by ``Annotated``.
    """

    exactly_one: bool
    state_type: StateType


class UnresolvedAnnotation(InvalidCommand):
    """An annotation names something that is not defined (yet): the class is checked again when it is first used."""


@final
class FieldTypes(msgspec.Struct, frozen=True):
    """What the annotations of a command class say.

    Attributes:
        streams: the fields that name streams.
        untyped: the fields whose type does not tell whether they hold a stream (``Any``, ``object``, a free type variable).
    """

    streams: Mapping[str, StreamField]
    untyped: tuple[str, ...]


def field_types(cls: type[Any]) -> FieldTypes:
    """Judge the annotations of a command class.

    Raises:
        UnresolvedAnnotation: a name in an annotation is not defined.
        InvalidCommand: a field may hold a stream that would not be part of the boundary, or states of two classes.
    """
    streams: dict[str, StreamField] = {}
    untyped: list[str] = []
    for name, hint in _hints(cls, cls.__name__).items():
        if get_origin(hint) is ClassVar or hint is ClassVar:
            continue
        where = f"{cls.__name__}.{name}"
        found = list(_leaves(hint))
        if found:
            streams[name] = StreamField(_unaliased(hint) is StreamId, _one_state(where, hint, found))
        elif hidden := _hidden(hint, set(), where):
            raise InvalidCommand(
                f"{where} is typed {_shown(hint)}: {hidden} would escape the conflict check; expected {EXPECTED}. Give the "
                "command a field of its own for each stream; type what is only data, and no part of the boundary, as str"
            )
        elif _is_open(hint):
            untyped.append(name)
    return FieldTypes(streams, tuple(untyped))


def _hints(cls: Any, name: str) -> dict[str, Any]:
    try:
        return get_type_hints(cls, include_extras=True)
    except Exception as error:
        raise UnresolvedAnnotation(
            f"{name}: its annotations cannot be resolved ({error}); define or import the names beside the class"
        ) from error


def _unaliased(hint: Any) -> Any:
    """The type behind ``Annotated``, ``NewType``, a bound type variable, or a ``type`` statement."""
    while (inner := _behind(hint)) is not hint:
        hint = inner
    return hint


def _behind(hint: Any) -> Any:
    """The next type behind an alias; the type itself if it is none."""
    if get_origin(hint) is Annotated:
        return get_args(hint)[0]
    if isinstance(hint, NewType):
        return hint.__supertype__
    if isinstance(hint, TypeVar):
        # `Union` because the constraints are known at run time only.
        return hint.__bound__ or (Union[hint.__constraints__] if hint.__constraints__ else hint)  # noqa: UP007
    # `type X = …` of Python 3.12.
    return hint.__value__ if type(hint).__name__ == "TypeAliasType" else hint


def _leaves(hint: Any, state: StateType = None) -> Iterator[StateType]:
    """The state class of each ``StreamId`` in a type whose every value is a stream, none, or a collection of streams.

    Yields nothing if the type has another form.
    """
    for extra in getattr(hint, "__metadata__", ()):
        if isinstance(extra, type) and issubclass(extra, StreamState):
            state = extra
    if (inner := _behind(hint)) is not hint:
        yield from _leaves(inner, state)
        return
    members = get_args(hint)
    if hint is StreamId:
        yield state
    elif get_origin(hint) in _UNIONS:
        found = [list(_leaves(member, state)) for member in members if member is not types.NoneType]
        if found and all(found):
            yield from (one for each in found for one in each)
    elif get_origin(hint) in _COLLECTIONS:
        inside = [member for member in members if member is not ...]
        if inside and all(_unaliased(member) is StreamId for member in inside):
            yield from (one for member in inside for one in _leaves(member, state))


def _one_state(where: str, hint: Any, found: list[StateType]) -> StateType:
    kinds = dict.fromkeys(found)
    if len(kinds) > 1:
        names = " and ".join("no state" if kind is None else kind.__name__ for kind in kinds)
        raise InvalidCommand(f"{where} is typed {_shown(hint)}, with {names}; use a field for each class of states")
    return found[0]


def _hidden(hint: Any, seen: set[Any], where: str) -> str:
    """Where inside a type a ``StreamId`` stands; empty if there is none."""
    plain = _unaliased(hint)
    if plain is StreamId:
        return "streams inside it"
    if isinstance(plain, str | ForwardRef):
        raise UnresolvedAnnotation(f"{where}: {plain!r} cannot be resolved; define or import it beside the class")
    if isinstance(plain, list | tuple):
        members = cast(Sequence[Any], plain)
        return next(filter(None, (_hidden(member, seen, where) for member in members)), "")
    if found := next(filter(None, (_hidden(member, seen, where) for member in get_args(plain))), ""):
        return found
    found_type: Any = get_origin(plain) or plain
    if not isinstance(found_type, type) or found_type in seen or found_type.__module__ == "builtins":
        return ""
    cls = cast(type[Any], found_type)
    seen.add(cls)
    has_fields = hasattr(cls, "__dataclass_fields__") or issubclass(cls, msgspec.Struct) or hasattr(cls, "_fields")
    try:
        hints = _hints(cls, f"{where}: {cls.__qualname__}")
    except UnresolvedAnnotation:
        if has_fields or is_typeddict(cls) or hasattr(cls, "__attrs_attrs__"):
            raise
        return ""
    for name, inner in hints.items():
        if get_origin(inner) is not ClassVar and _hidden(inner, seen, where):
            return f"the stream in {cls.__qualname__}.{name}"
    return ""


def _is_open(hint: Any) -> bool:
    plain = _unaliased(hint)
    return plain is Any or plain is object or isinstance(plain, TypeVar) or any(map(_is_open, get_args(plain)))


def _shown(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
