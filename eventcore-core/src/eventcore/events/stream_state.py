"""States of streams: what the events of one stream add up to, independent of the command that asks."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, dataclass_transform

import msgspec

from eventcore.errors import InvalidCommand
from eventcore.events.event import RecordedEvent


@dataclass_transform(field_specifiers=(msgspec.field,))
class _StateMeta(msgspec.StructMeta):
    """Reads the class keywords ``version`` and ``snapshot_every``, which msgspec does not know, and checks the fields."""

    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        version: int | None = None,
        snapshot_every: int | None = None,
        **options: Any,
    ) -> Any:
        # What is not named is inherited.
        cls: Any = super().__new__(mcls, name, bases, namespace, **options)
        if version is not None:
            if type(version) is not int or version < 1:
                raise InvalidCommand(f"{name}: version={version!r}; expected a whole number from 1")
            cls.state_version = version
        if snapshot_every is not None:
            if type(snapshot_every) is not int or snapshot_every < 1:
                raise InvalidCommand(f"{name}: snapshot_every={snapshot_every!r}; expected a number of events from 1")
            cls.snapshot_every = snapshot_every
        apply = namespace.get("apply")
        if inspect.iscoroutinefunction(apply) or inspect.isasyncgenfunction(apply):
            raise InvalidCommand(f"{name}.apply is async; expected a plain method: it does no I/O, and nothing awaits it")
        required = [field.name for field in msgspec.structs.fields(cls) if field.required]
        if required:
            raise InvalidCommand(
                f"{name}.{required[0]} has no default, so there is no state before the first event; give every field a default"
            )
        return cls


class StreamState(msgspec.Struct, metaclass=_StateMeta):
    """Base class of the state of one stream: what its events add up to.

    A command asks for it with a field of type ``Annotated[StreamId, Account]``. The state belongs to the stream, so all
    commands share it: eventcore keeps it, applies only the events that are new, and gives each command a copy. A state whose
    fields are all numbers, texts, dates and the like is copied fastest, whatever the length of a text.

    Class keywords:
        version: change it when the meaning of a field or of ``apply`` changes. Stored states of another version are not used.
            Default: 1.
        snapshot_every: store the state beside the events each time that so many events are new, so that the first command
            after a start does not read the stream from its first event. Left out, the state is only kept in memory.

    Every field has a default, and a type that msgspec can write as JSON and read back equal, as fields of events have.
    ``apply`` must not need anything but the state and the event: it knows no command.

    Raises:
        InvalidCommand: (when the class is defined) a field has no default, ``apply`` is ``async``, or a class keyword is out
            of its range; (when a command asks for the state) ``apply`` has returned a value.

    >>> class Account(StreamState, version=1, snapshot_every=1000):
    ...     balance: int = 0
    ...     def apply(self, event):
    ...         self.balance += event.data.amount
    >>> Account()
    Account(balance=0)
    """

    state_version: ClassVar[int] = 1
    snapshot_every: ClassVar[int | None] = None

    def apply(self, event: RecordedEvent) -> None:
        """Change the state to what it is after ``event``, and return nothing. Events come in order of version."""
        raise NotImplementedError(f"{type(self).__name__} does not define apply")


def returned_a_value(state: StreamState) -> InvalidCommand:
    """The error of a state whose ``apply`` returns a value. It would be lost: a state changes in place."""
    name = type(state).__name__
    return InvalidCommand(
        f"{name}.apply returned a value, but the state is the object itself, and a new one would be lost: set its fields "
        "(self.x = …) and return nothing"
    )
