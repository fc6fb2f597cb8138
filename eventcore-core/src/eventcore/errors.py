"""Every error that eventcore raises: one class per decision that a caller can take.

EventCoreError
├── ConfigurationError            mend the configuration; ``faults`` lists everything that is wrong
├── DefinitionError               mend the code: something was declared in a way that cannot work
│   ├── InvalidInstrument         a metric name, label name, unit or shape
│   ├── InvalidEventType          an event class, or two classes with one stored type
│   ├── InvalidCommand            a command class, or what its ``handle`` yields
│   ├── InvalidProjection         a projection's name, filter, or the signature of its handler
│   └── InvalidExporter           an exporter whose hooks do not fit the specification
├── InvalidInput                  mend the value that was passed (also a ``ValueError``)
│   ├── InvalidStreamId
│   ├── InvalidStoreUrl
│   ├── InvalidPattern            a pattern of stream ids
│   ├── InvalidMetadata           a header, correlation id or causation id
│   ├── InvalidMeasurement        a label value or a number that an instrument cannot take
│   └── InvalidEvent              an event that could not be read back, or is over the size limit
├── CommandError                  the command was not carried out
│   ├── BusinessRuleViolation     the domain said no: tell the user
│   ├── ConcurrencyConflict       others were faster in every attempt: try again later
│   └── CommandTimeout            no answer in time; ``may_have_committed`` says whether to look (also a ``TimeoutError``)
└── StoreError                    the store could not do its part
    ├── StoreUnavailable          nothing wrong with the request: try again when the store is back
    ├── StoreClosed               the store was used before it was opened or after it was closed
    ├── WrongEventLoop            the store was opened on another event loop: open one on each
    ├── IncompatibleStore         not an eventcore store, or one of another schema version: choose another, or migrate it
    ├── AccessDenied              the store refuses this user: mend the password or the rights
    ├── MissingDependency         the kind of store needs a package that is not installed: install the extra
    ├── HistoryDiverged           the event that a reader has reached is gone: another timeline; rebuild, do not go on
    ├── UnknownEventType          stored, but no class of this process has that type
    ├── CorruptEvent              stored, but not readable as what it claims to be
    └── ProjectionError           a read model could not be kept up to date
        ├── ProjectionFailed      its handler failed and its policy is to stop: mend the handler or the event
        ├── ProjectionTimeout     it has not come so far in time: wait longer (also a ``TimeoutError``)
        └── LeadershipLost        another process runs it now; what this one was about to commit was refused
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

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
    "StoreError",
    "StoreUnavailable",
    "UnknownEventType",
    "WrongEventLoop",
]


class EventCoreError(Exception):
    """Root of all errors of eventcore."""


@final
class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong in a configuration.

    ``where`` is the file, ``"environment"`` or ``"arguments"``; ``key`` the dotted key; ``problem`` what is wrong, what was
    expected and what to do.
    """

    where: str
    key: str
    problem: str

    def __str__(self) -> str:
        return f"{self.where}: {self.key}: {self.problem}"


class ConfigurationError(EventCoreError):
    """The configuration has faults; ``faults`` holds every one of them, not only the first."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults: tuple[Fault, ...] = tuple(faults)
        lines = "".join(f"\n  - {fault}" for fault in self.faults)
        count = len(self.faults)
        super().__init__(f"{count} {'fault' if count == 1 else 'faults'} in the configuration:{lines}")

    def __reduce__(self) -> tuple[type[ConfigurationError], tuple[tuple[Fault, ...]]]:
        return type(self), (self.faults,)


class DefinitionError(EventCoreError):
    """Something was declared in code in a way that cannot work."""


class InvalidInstrument(DefinitionError):
    """An instrument's name, unit, labels or boundaries do not fit, or its name is taken by another shape."""


class InvalidEventType(DefinitionError):
    """An event class cannot be stored, or its stored type belongs to another class."""


class InvalidCommand(DefinitionError):
    """A command class, or what its methods return, is not what ``execute`` can work with."""


class InvalidProjection(DefinitionError):
    """A projection is declared in a way that this store cannot run."""


class InvalidExporter(DefinitionError):
    """An exporter does not fit the hook specification; the message names plugin, distribution and what was expected."""


class InvalidInput(EventCoreError, ValueError):
    """A value that was passed cannot be used."""


class InvalidStreamId(InvalidInput):
    """A text is not a stream id."""


class InvalidStoreUrl(InvalidInput):
    """A URL names no store that can be opened."""


class InvalidPattern(InvalidInput):
    """A text is not a pattern of stream ids."""


class InvalidMetadata(InvalidInput):
    """A header, correlation id or causation id cannot be stored."""


class InvalidMeasurement(InvalidInput):
    """A number or a label value cannot be recorded by this instrument."""


class InvalidEvent(InvalidInput):
    """An event cannot be stored: it could not be read back as it is, or it is over the size limit."""


class CommandError(EventCoreError):
    """A command was not carried out."""


class BusinessRuleViolation(CommandError):
    """Raised by ``Command.handle`` to refuse: the state of the domain does not allow the command."""


class ConcurrencyConflict(CommandError):
    """Other writers changed the command's streams in every attempt that the retry policy allows."""


class CommandTimeout(CommandError, TimeoutError):
    """A command had no answer within its timeout.

    ``may_have_committed`` is true when its append was already on its way: then its events may stand, and only reading the
    streams tells.
    """

    def __init__(self, message: str, *, may_have_committed: bool) -> None:
        super().__init__(message)
        self.may_have_committed = may_have_committed


class StoreError(EventCoreError):
    """The store could not do its part."""


class StoreUnavailable(StoreError):
    """The store cannot be reached, or cannot write now; the request itself may be sent again later.

    ``may_have_committed`` is true when an append was on its way and its answer was lost for good: then the command's events may
    stand, and only reading the streams tells.
    """

    def __init__(self, message: str, *, may_have_committed: bool = False) -> None:
        super().__init__(message)
        self.may_have_committed = may_have_committed


class StoreClosed(StoreError):
    """The store is not open: ``async with open_store(...)`` opens it and closes it at the end of the block."""


class WrongEventLoop(StoreError):
    """A store was used on another event loop than the one that opened it."""


class IncompatibleStore(StoreError):
    """What the URL names is not an eventcore store, or has a schema version that this eventcore does not know."""


class AccessDenied(StoreError):
    """The store refuses the user: a wrong password, or rights that are missing."""


class MissingDependency(StoreError):
    """The kind of store needs a package that is not installed; the message says what to install."""


class HistoryDiverged(StoreError):
    """The event that a reader has reached no longer stands in the store: a failover or a restore has gone back in time.

    What was read after the point of divergence may never have happened, so a reader must not go on: rebuild the read model.
    """


class UnknownEventType(StoreError):
    """A stored event has a type for which this process has no class."""


class CorruptEvent(StoreError):
    """A stored event cannot be read as the class that its type names."""


class ProjectionError(StoreError):
    """A read model could not be kept up to date."""


class ProjectionFailed(ProjectionError):
    """A projection's handler failed on an event, and its policy is to stop; the cause is the handler's exception."""


class ProjectionTimeout(ProjectionError, TimeoutError):
    """A projection has not reached the position in time; it may do so later."""


class LeadershipLost(ProjectionError):
    """Another process has taken over the projection: the checkpoint was refused, and nothing of the batch stands."""
