"""A store so simple that it is evidently right: a list of what has happened, asked from its beginning each time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import translate
from typing import Any, NamedTuple

from eventcore import Command, CommandResult, Event, StreamId
from eventcore.testing.contract.accounts import (
    Collect,
    Deposit,
    Deposited,
    Guarantee,
    Link,
    Linked,
    Look,
    Remit,
    Transfer,
    Withdrawn,
)

__all__ = ["Happened", "Model", "Refused"]


class Happened(NamedTuple):
    """An event of the model; its position is its place in the list, from 1."""

    stream: StreamId
    version: int
    data: Event


class Refused(Exception):
    """The model says no."""


class Model:
    """What has happened, and what a command would do next."""

    def __init__(self) -> None:
        self.log: list[Happened] = []
        # By idempotency key: the first command that succeeded with it, and its result.
        self.keys: dict[str, tuple[Command[Any], CommandResult]] = {}

    def holds(self, stream: StreamId) -> int:
        return sum(_change(event.data) for event in self.log if event.stream == stream)

    def version(self, stream: StreamId) -> int:
        return sum(event.stream == stream for event in self.log)

    def append(self, events: Iterable[tuple[StreamId, Event]]) -> None:
        for stream, data in events:
            self.log.append(Happened(stream, self.version(stream) + 1, data))

    def decide(self, command: Command[Any]) -> list[tuple[StreamId, Event]]:
        """What the command writes now; ``Refused`` if it would be."""
        match command:
            case Deposit(account=stream, amount=amount, note=note, times=times):
                return [(stream, Deposited(amount=amount, note=note))] * times
            case Transfer(source=source, target=target, amount=amount) | Remit(source=source, target=target, amount=amount):
                if self.holds(source) < amount:
                    raise Refused
                return [(source, Withdrawn(amount=amount)), (target, Deposited(amount=amount))]
            case Guarantee(account=stream, guarantor=guarantor, amount=amount):
                if sum(map(self.holds, {stream, guarantor})) < amount:
                    raise Refused
                return [(stream, Withdrawn(amount=amount))]
            case Link(account=stream, to=to):
                return [(stream, Linked(account=to))]
            case Collect(account=stream):
                held = {one: self.holds(one) for one in sorted(self._reachable(stream) - {stream})}
                taken = [(one, Withdrawn(amount=amount)) for one, amount in held.items() if amount]
                total = sum(held.values())
                return [*taken, *([(stream, Deposited(amount=total))] if total else [])]
            case Look():
                return []
            case _:
                raise AssertionError(f"the model knows no {command!r}")

    def stream(self, stream: StreamId, after_version: int, limit: int | None) -> list[tuple[int, int, Event]]:
        """Position, version and data, as ``EventStore.read`` gives them."""
        found = [(at, event.version, event.data) for at, event in enumerate(self.log, 1) if event.stream == stream]
        return found[after_version:][:limit]

    def all(
        self, after: int, pattern: str | None, event_types: Sequence[type[Event]] | None, limit: int | None
    ) -> list[tuple[int, StreamId, int, Event]]:
        """Position, stream, version and data, as ``EventStore.read_all`` gives them."""
        wanted = re.compile(translate(pattern or "*"))
        found = [
            (at, event.stream, event.version, event.data)
            for at, event in enumerate(self.log, 1)
            if at > after and wanted.match(event.stream) and (event_types is None or type(event.data) in event_types)
        ]
        return found[:limit]

    def _reachable(self, stream: StreamId) -> set[StreamId]:
        known, waiting = {stream}, [stream]
        while waiting:
            one = waiting.pop()
            for event in self.log:
                if event.stream == one and isinstance(event.data, Linked) and event.data.account not in known:
                    known.add(event.data.account)
                    waiting.append(event.data.account)
        return known


def _change(event: Event) -> int:
    match event:
        case Deposited(amount=amount):
            return amount
        case Withdrawn(amount=amount):
            return -amount
        case _:
            return 0
