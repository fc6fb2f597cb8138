"""Every error that eventcore raises: one class for each reaction that a caller may need.

EventCoreError
├── ConfigurationError            fix the configuration; raised when a store or telemetry starts; ``faults`` lists all faults
├── DefinitionError               fix the code: a declaration cannot work
│   ├── InvalidInstrument         a metric's name, labels, unit or kind
│   ├── InvalidEventType          an event class, or two classes with one stored type of which one is used
│   ├── InvalidCommand            a command class, or what its methods return
│   ├── InvalidProjection         a projection's name, filter, or the signature of its handler
│   └── InvalidExporter           an exporter whose hooks do not fit the specification
├── InvalidInput                  fix the value that was passed (also a ``ValueError``)
│   ├── InvalidStreamId
│   ├── InvalidStoreUrl
│   ├── InvalidPattern            a pattern of stream ids
│   ├── InvalidMetadata           a header, correlation id, causation id or idempotency key
│   ├── InvalidMeasurement        a label value or a number that an instrument cannot record
│   └── InvalidEvent              an event that could not be read back, or is larger than allowed
├── CommandError                  the command was not executed
│   ├── BusinessRuleViolation     the domain refused the command: tell the user
│   ├── IdempotencyKeyReused      the key belongs to another command: use a new key
│   ├── ConcurrencyConflict       other writers were faster in every attempt: try again later
│   └── CommandTimeout            no answer in time; ``may_have_committed`` says whether to check (also a ``TimeoutError``)
└── StoreError                    the store failed, or cannot be used
    ├── StoreUnavailable          the request is valid: try again when the store is back
    │   └── StoreDraining         this process is about to stop: send the request to another one
    ├── StoreClosed               the store was used before it was opened or after it was closed
    │   └── StoreForked           the store was opened before this process was forked: open one in the child
    ├── WrongEventLoop            the store was opened on another event loop: open one on each
    ├── IncompatibleStore         not an eventcore store, or one with another schema version: choose another, or migrate it
    ├── AccessDenied              the store refuses this user: fix the password or the rights
    ├── MissingDependency         this kind of store needs a package that is not installed: install the extra
    ├── HistoryDiverged           the store no longer holds an event that was read (failover, restore): rebuild the read model
    ├── UnknownEventType          not exactly one class in this process has the type of a stored event: import or rename it
    ├── CorruptEvent              a stored event does not fit its class: fix the class or the row
    └── ProjectionError           a read model could not be kept up to date
        ├── ProjectionFailed      a handler failed and its policy is to stop: fix the handler or the event
        ├── ProjectionTimeout     the projection is still behind: wait longer (also a ``TimeoutError``)
        └── LeadershipLost        another process runs the projection now, and this one's checkpoint was refused
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar, final

import msgspec

__all__ = [
    "AccessDenied",
    "BusinessRuleViolation",
    "CommandError",
    "CommandTimeout",
    "ConcurrencyConflict",
    "ConfigurationError",
    "CorruptEvent",
    "DefinitionError",
    "EventCoreError",
    "Fault",
    "HistoryDiverged",
    "IdempotencyKeyReused",
    "IncompatibleStore",
    "InvalidCommand",
    "InvalidEvent",
    "InvalidEventType",
    "InvalidExporter",
    "InvalidInput",
    "InvalidInstrument",
    "InvalidMeasurement",
    "InvalidMetadata",
    "InvalidPattern",
    "InvalidProjection",
    "InvalidStoreUrl",
    "InvalidStreamId",
    "LeadershipLost",
    "MissingDependency",
    "ProjectionError",
    "ProjectionFailed",
    "ProjectionTimeout",
    "StoreClosed",
    "StoreDraining",
    "StoreError",
    "StoreForked",
    "StoreUnavailable",
    "UnknownEventType",
    "WrongEventLoop",
]


ErrorT = TypeVar("ErrorT", bound="EventCoreError")


class EventCoreError(Exception):
    """Base class of all errors that eventcore raises.

    All of them can be pickled and copied, with their attributes; also a class that an application derives, whatever arguments
    its ``__init__`` takes.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args, self.__dict__)


def _restored(cls: type[ErrorT], args: tuple[Any, ...], attributes: dict[str, Any]) -> ErrorT:
    """An error as it was, made without ``__init__``: that may take other arguments than those that the error keeps."""
    error = cls.__new__(cls, *args)
    # `OSError`, the base of `TimeoutError`, sets `args` only in `__init__`.
    error.args = args
    error.__dict__.update(attributes)
    return error


@final
class Fault(msgspec.Struct, frozen=True):
    """One fault in a configuration.

    Attributes:
        where: the path of the file, ``"environment"`` or ``"arguments"``.
        key: the dotted key.
        problem: what is wrong, what was expected, and what to do.
    """

    where: str
    key: str
    problem: str

    def __str__(self) -> str:
        return f"{self.where}: {self.key}: {self.problem}"


class ConfigurationError(EventCoreError):
    """The configuration has faults. Raised when it is read: by ``async with open_store(...)``, or by ``Telemetry.start``.

    Attributes:
        faults: all faults, not only the first.
    """

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults: tuple[Fault, ...] = tuple(faults)
        lines = "".join(f"\n  - {fault}" for fault in self.faults)
        count = len(self.faults)
        super().__init__(f"{count} {'fault' if count == 1 else 'faults'} in the configuration:{lines}")


class DefinitionError(EventCoreError):
    """A declaration in code cannot work."""


class InvalidInstrument(DefinitionError):
    """An instrument's name, unit, labels or buckets are invalid, or its name belongs to an instrument of another kind."""


class InvalidEventType(DefinitionError):
    """The stored type of an event class is invalid, or belongs to another class; or the class cannot be read from JSON."""


class InvalidCommand(DefinitionError):
    """``execute`` cannot work with a command class, or with what its methods return."""


class InvalidProjection(DefinitionError):
    """This store cannot run a projection as it is declared, or a handler did what it must not do with its transaction."""


class InvalidExporter(DefinitionError):
    """An exporter does not fit the hook specification; the message names the plugin and what was expected."""


class InvalidInput(EventCoreError, ValueError):
    """A value that was passed cannot be used."""


class InvalidStreamId(InvalidInput):
    """A text is not a stream id."""


class InvalidStoreUrl(InvalidInput):
    """A URL names no store that can be opened."""


class InvalidPattern(InvalidInput):
    """A text is not a pattern of stream ids."""


class InvalidMetadata(InvalidInput):
    """A header, correlation id, causation id or idempotency key cannot be stored."""


class InvalidMeasurement(InvalidInput):
    """A number or a label value cannot be recorded by this instrument."""


class InvalidEvent(InvalidInput):
    """An event cannot be stored: it could not be read back equal, or it is larger than allowed.

    Attributes:
        event_type: the stored type of the event; ``None`` if it has none.
    """

    def __init__(self, message: str, *, event_type: str | None = None) -> None:
        super().__init__(message)
        self.event_type = event_type


class CommandError(EventCoreError):
    """A command was not executed."""


class BusinessRuleViolation(CommandError):
    """Raised by ``Command.handle`` to refuse a command that the current state does not allow."""


class IdempotencyKeyReused(CommandError):
    """An idempotency key was used for another command before. Nothing was executed.

    Attributes:
        key: the key.
    """

    def __init__(self, message: str, *, key: str) -> None:
        super().__init__(message)
        self.key = key


class ConcurrencyConflict(CommandError):
    """Other writers changed the command's streams in every attempt that the retry policy allows."""


class CommandTimeout(CommandError, TimeoutError):
    """A command had no answer within its timeout.

    Attributes:
        may_have_committed: whether the append had been sent. If so, the events may be stored: read the streams to find out.
    """

    def __init__(self, message: str, *, may_have_committed: bool) -> None:
        super().__init__(message)
        self.may_have_committed = may_have_committed


class StoreError(EventCoreError):
    """The store failed, or cannot be used."""


class StoreUnavailable(StoreError):
    """The store cannot be reached, or cannot write now. The same request may succeed later.

    Attributes:
        may_have_committed: whether an append was sent and its answer was lost. If so, the events may be stored: read the
            streams to find out.
    """

    def __init__(self, message: str, *, may_have_committed: bool = False) -> None:
        super().__init__(message)
        self.may_have_committed = may_have_committed


class StoreDraining(StoreUnavailable):
    """The process is about to stop (``EventStore.drain``). Nothing was executed: another process can serve the request."""


class StoreClosed(StoreError):
    """The store is not open: ``async with open_store(...)`` opens it, and closes it at the end of the block."""


class StoreForked(StoreClosed):
    """A store that was open when its process was forked was used in the child.

    Connections cannot be shared with the parent. Open a store in the child; one that was made and not opened before the fork
    can be opened there.
    """


class WrongEventLoop(StoreError):
    """A store was used on an event loop that did not open it."""


class IncompatibleStore(StoreError):
    """The URL does not name an eventcore store, or the store has a schema version that this release does not know."""


class AccessDenied(StoreError):
    """The store refuses the user: the password is wrong, or rights are missing."""


class MissingDependency(StoreError):
    """A kind of store, or a format of logs, needs a package that is not installed; the message says which."""


class HistoryDiverged(StoreError):
    """The store no longer holds an event that was read: a failover or a restore took it back in time.

    Events that were read after that time may be lost, so a reader must not go on: rebuild the read model.
    """


class _UnreadableEvent(StoreError):
    """A stored event cannot be read. Says which one."""

    def __init__(
        self,
        message: str,
        *,
        stream_id: str | None = None,
        version: int | None = None,
        position: int | None = None,
        event_type: str | None = None,
    ) -> None:
        super().__init__(message)
        self.stream_id = stream_id
        self.version = version
        self.position = position
        self.event_type = event_type


class UnknownEventType(_UnreadableEvent):
    """No class in this process can be used for the type of a stored event: none has it, or more than one has it.

    Attributes:
        stream_id, version, position, event_type: the stored event.
    """


class CorruptEvent(_UnreadableEvent):
    """A stored event does not fit the class of its type. ``__cause__`` is what the class or the decoder raised.

    Attributes:
        stream_id, version, position, event_type: the stored event; ``None`` if the whole row cannot be read.
    """


class ProjectionError(StoreError):
    """A read model could not be kept up to date."""


class ProjectionFailed(ProjectionError):
    """A handler failed on an event, and its policy is to stop. ``__cause__`` is the exception of the handler."""


class ProjectionTimeout(ProjectionError, TimeoutError):
    """A projection did not reach the position in time. It may reach it later."""


class LeadershipLost(ProjectionError):
    """Another process runs the projection now. The checkpoint was refused, and the batch was not committed."""
