"""The plan of a command class: which fields name its streams. Made, and the class checked, once for each class."""

from __future__ import annotations

import collections.abc
import inspect
import types
from typing import Any, Final, Union, final, get_args, get_origin, get_type_hints

from eventcore.commands.command import Command
from eventcore.errors import InvalidCommand
from eventcore.events import StreamId

_COLLECTIONS: Final = (tuple, list, set, frozenset, collections.abc.Sequence, collections.abc.Set)
_EXPECTED: Final = "StreamId, StreamId | None, or a tuple, list, set or frozenset of StreamId"


@final
class CommandPlan:
    """How commands of one class are executed.

    Attributes:
        name: the name of the class.
        discovers: whether the class defines ``discover_streams``.

    Raises:
        InvalidCommand: the class lacks a method, has an ``async`` one, or has a field whose type contains ``StreamId`` in a way
            that is not supported.
    """

    def __init__(self, cls: type[Command[Any]]) -> None:
        self.name: Final = cls.__name__
        self._cls = cls
        for method in ("initial_state", "apply", "handle", "discover_streams"):
            self._check_method(method)
        base: type[Command[Any]] = Command
        if cls.handle is base.handle:
            raise InvalidCommand(f"{self.name} does not define handle")
        if (cls.initial_state is base.initial_state) != (cls.apply is base.apply):
            raise InvalidCommand(
                f"{self.name} defines only one of initial_state and apply; expected both, or none to decide without a state"
            )
        self.discovers: Final = cls.discover_streams is not base.discover_streams
        self._fields: Final = self._stream_fields()
        if not self._fields and not self.discovers:
            raise InvalidCommand(
                f"{self.name} has no field of type {_EXPECTED}, so there is no stream that it could read or write"
            )

    def streams(self, command: Command[Any]) -> tuple[StreamId, ...]:
        """The streams that the fields of ``command`` name, without duplicates.

        Raises:
            InvalidCommand: a field holds another value, or the command names no stream.
        """
        found: list[StreamId] = []
        for name, exactly_one in self._fields.items():
            value = getattr(command, name)
            if type(value) is StreamId:
                found.append(value)
            elif exactly_one or isinstance(value, str):
                raise self._wrong(name, value)
            elif value is not None:
                for member in value:
                    if type(member) is not StreamId:
                        raise self._wrong(name, member)
                    found.append(member)
        if not found and not self.discovers:
            raise InvalidCommand(f"{self.name} names no stream: empty are {', '.join(self._fields)}")
        return tuple(dict.fromkeys(found)) if len(found) > 1 else tuple(found)

    def _stream_fields(self) -> dict[str, bool]:
        """The fields that name streams, by name, and whether each holds exactly one stream."""
        try:
            hints = get_type_hints(self._cls)
        except Exception as error:
            raise InvalidCommand(
                f"{self.name}: its annotations cannot be resolved ({error}); define or import the names beside the class"
            ) from error
        fields: dict[str, bool] = {}
        for name in self._cls.__struct_fields__:
            hint = hints[name]
            if _names_streams(hint):
                fields[name] = hint is StreamId
            elif _mentions_streams(hint):
                raise InvalidCommand(
                    f"{self.name}.{name} is typed {hint}: streams inside it would escape the conflict check; "
                    f"expected {_EXPECTED}"
                )
        return fields

    def _check_method(self, name: str) -> None:
        method = getattr(self._cls, name)
        if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
            raise InvalidCommand(
                f"{self.name}.{name} is async; expected a plain method: it is called again in every attempt and does no I/O. "
                "Read what it needs before, and pass it as a field"
            )

    def _wrong(self, name: str, value: object) -> InvalidCommand:
        hint = f"write StreamId({value!r:.80})" if isinstance(value, str) else f"expected {_EXPECTED}"
        return InvalidCommand(f"{self.name}.{name} holds {value!r:.80} of type {type(value).__name__}; {hint}")


def _names_streams(hint: Any) -> bool:
    """Whether every value of the type is a stream, none, or a collection of streams."""
    members = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return _mentions_streams(hint) and all(member is types.NoneType or _names_streams(member) for member in members)
    if get_origin(hint) in _COLLECTIONS:
        return bool(members) and all(member is StreamId or member is ... for member in members)
    return hint is StreamId


def _mentions_streams(hint: Any) -> bool:
    return hint is StreamId or any(map(_mentions_streams, get_args(hint)))
