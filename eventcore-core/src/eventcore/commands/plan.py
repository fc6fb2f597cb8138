"""What is to be known of a command class, found out once: its consistency boundary and whether it can be executed at all."""

from __future__ import annotations

import collections.abc
import inspect
import types
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final, Union, final, get_args, get_origin, get_type_hints

from eventcore.commands.command import Command
from eventcore.errors import InvalidCommand
from eventcore.events import StreamId

_MANY: Final = (tuple, list, set, frozenset, collections.abc.Sequence, collections.abc.Set)
_EXPECTED: Final = "StreamId, StreamId | None, or a tuple, list, set or frozenset of StreamId"


@final
class CommandPlan:
    """How commands of one class are executed.

    Raises:
        InvalidCommand: the class lacks a method, has an ``async`` one, or a field of which it is not clear whether it belongs
            to the boundary.
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
        single, several = self._stream_fields()
        self._single: Final = tuple(single)
        self._several: Final = tuple(several)
        self._get_single: Final[Callable[[Any], Any] | None] = attrgetter(*single) if single else None
        if not single and not several and not self.discovers:
            raise InvalidCommand(
                f"{self.name} has no field of type {_EXPECTED}, so there is no stream that it could read or write"
            )

    def streams(self, command: Command[Any]) -> tuple[StreamId, ...]:
        """The streams that the fields of ``command`` name, without duplicates.

        Raises:
            InvalidCommand: a field holds something else.
        """
        found: tuple[Any, ...] = ()
        if self._get_single is not None:
            values = self._get_single(command)
            found = values if len(self._single) > 1 else (values,)
            for index, value in enumerate(found):
                if type(value) is not StreamId:
                    raise self._wrong(self._single[index], value)
        for name in self._several:
            value = getattr(command, name)
            if value is None:
                continue
            members = (value,) if isinstance(value, str) else value
            for member in members:
                if type(member) is not StreamId:
                    raise self._wrong(name, member)
            found += tuple(members)
        if len(found) > 1:
            found = tuple(dict.fromkeys(found))
        if not found and not self.discovers:
            raise InvalidCommand(f"{self.name} names no stream at all: {', '.join(self._several)} is empty")
        return found

    def _stream_fields(self) -> tuple[list[str], list[str]]:
        try:
            hints = get_type_hints(self._cls)
        except Exception as error:
            raise InvalidCommand(
                f"{self.name}: its annotations cannot be resolved ({error}); define or import the names beside the class"
            ) from error
        single: list[str] = []
        several: list[str] = []
        for name in self._cls.__struct_fields__:
            hint = hints[name]
            if hint is StreamId:
                single.append(name)
            elif _names_streams(hint):
                several.append(name)
            elif _mentions(hint, StreamId):
                raise InvalidCommand(
                    f"{self.name}.{name} is typed {hint}: streams inside it would escape the conflict check; "
                    f"expected {_EXPECTED}"
                )
        return single, several

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
    if hint is StreamId or hint is types.NoneType:
        return True
    origin, members = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _mentions(hint, StreamId) and all(map(_names_streams, members))
    if origin in _MANY:
        return bool(members) and all(member is StreamId or member is ... for member in members)
    return False


def _mentions(hint: Any, wanted: type) -> bool:
    return hint is wanted or any(_mentions(member, wanted) for member in get_args(hint))
