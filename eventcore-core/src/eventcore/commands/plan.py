"""The plan of a command class: which fields name its streams, and how they are folded. Made once for each class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, cast, final

from eventcore.commands.command import Command
from eventcore.commands.fields import EVENTS, EXPECTED, VERSION, Need, Needs, field_types
from eventcore.errors import InvalidCommand
from eventcore.events import StreamId


@final
class CommandPlan:
    """How commands of one class are executed.

    Attributes:
        name: the name of the class.
        discovers: whether the class defines ``discover_streams``.
        folds: whether the class folds events itself, in ``initial_state`` and ``apply``.
        has_states: whether the state is a mapping of streams to their ``StreamState``. If neither, the command decides without
            a state.

    Raises:
        InvalidCommand: the class lacks a method, or has a field whose type contains ``StreamId`` in a way
            that is not supported.
    """

    def __init__(self, cls: type[Command[Any]]) -> None:
        self.name: Final = cls.__name__
        base: type[Command[Any]] = Command
        if cls.handle is base.handle:
            raise InvalidCommand(f"{self.name} does not define handle")
        methods = [name for name in ("initial_state", "apply") if getattr(cls, name) is not getattr(base, name)]
        if len(methods) == 1:
            raise InvalidCommand(
                f"{self.name} defines only one of initial_state and apply; expected both, or none to decide without a state"
            )
        self.folds: Final = bool(methods)
        self.discovers: Final = cls.discover_streams is not base.discover_streams
        types = field_types(cls)
        # What the command needs of a stream that has no state of its own.
        self.default: Final[Need] = EVENTS if self.folds else VERSION
        self._fields: Final = {
            name: (field.exactly_one, field.state_type or self.default) for name, field in types.streams.items()
        }
        self._untyped: Final = types.untyped
        annotated = [name for name, field in types.streams.items() if field.state_type is not None]
        if annotated and self.folds:
            raise InvalidCommand(
                f"{self.name} defines initial_state and apply beside {self.name}.{annotated[0]}, whose state is folded by its "
                "own class; remove both methods, or annotate the field as StreamId"
            )
        # A command that folds nothing may discover streams that have states.
        self.has_states: Final = bool(annotated) or (self.discovers and not self.folds)
        if not self._fields and not self.discovers:
            raise InvalidCommand(
                f"{self.name} has no field of type {EXPECTED}, so there is no stream that it could read or write"
            )

    def streams(self, command: Command[Any]) -> Needs:
        """The streams that the fields of ``command`` name, without duplicates, and what is needed of each.

        Raises:
            InvalidCommand: a field holds another value, a stream has states of two classes, or the command names no stream.
        """
        found: dict[StreamId, Need] = {}
        for name, (exactly_one, need) in self._fields.items():
            value = getattr(command, name)
            if type(value) is StreamId:
                if found.setdefault(value, need) is not need:
                    self.add(found, value, need)
            elif exactly_one or isinstance(value, str):
                raise self._wrong(name, value)
            elif value is not None:
                for member in value:
                    if type(member) is not StreamId:
                        raise self._wrong(name, member)
                    self.add(found, member, need)
        for name in self._untyped if not self.discovers else ():
            value = getattr(command, name)
            if any(type(part) is StreamId and part not in found for part in _parts(value)):
                raise InvalidCommand(
                    f"{self.name}.{name} holds {value!r:.80}, which its type does not say: the stream would escape the "
                    f"conflict check; type the field {EXPECTED}, or pass what is only data as str"
                )
        if not found and not self.discovers:
            raise InvalidCommand(f"{self.name} names no stream: empty are {', '.join(self._fields)}")
        return found

    def add(self, found: dict[StreamId, Need], stream: StreamId, need: Need) -> None:
        """Add a stream to a boundary. A stream that is named twice, once with the class of a state, has this state.

        Raises:
            InvalidCommand: the stream has another class of states already.
        """
        known = found.setdefault(stream, need)
        if known is not need:
            if not isinstance(known, str) and not isinstance(need, str):
                raise InvalidCommand(
                    f"{self.name} asks for the stream {stream!r} as {known.__name__} and as {need.__name__}; one "
                    "stream has one class of states in a command"
                )
            found[stream] = need if isinstance(known, str) else known

    def _wrong(self, name: str, value: object) -> InvalidCommand:
        hint = f"write StreamId({value!r:.80})" if isinstance(value, str) else f"expected {EXPECTED}"
        return InvalidCommand(f"{self.name}.{name} holds {value!r:.80} of type {type(value).__name__}; {hint}")


def _parts(value: object) -> Iterable[object]:
    """The members of a collection; any other value itself."""
    if isinstance(value, Mapping):
        mapping = cast(Mapping[object, object], value)
        return (*mapping.keys(), *mapping.values())
    return cast(Iterable[object], value) if isinstance(value, list | tuple | set | frozenset) else (value,)
