"""Commands whose events record the state they were decided on, so that the database shows every wrong decision."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, ClassVar, TypeAlias

import msgspec

from eventcore import BusinessRuleViolation, Command, Event, RecordedEvent, StreamId, StreamState
from tests.soak.proof import digest

HOT = StreamId("hot")
COLD = tuple(StreamId(f"cold-{number}") for number in range(40))
GUARDS = tuple(StreamId(f"guard-{number}") for number in range(4))
INDEXES = tuple(StreamId(f"index-{number}") for number in range(4))


class Part(msgspec.Struct, frozen=True):
    """What each event records of its command.

    Attributes:
        command: the id of the command.
        number: the index of this event among the events of the command.
        of: the number of events of the command.
        seen: for every stream that the command read, the digest of the stream at the decision.
    """

    command: str
    number: int
    of: int
    seen: dict[str, int]


class Noted(Event):
    event_type: ClassVar[str] = "soak.Noted"
    part: Part
    amount: int
    text: str = ""


class Linked(Event):
    event_type: ClassVar[str] = "soak.Linked"
    part: Part
    amount: int
    to: StreamId


class Seen(msgspec.Struct):
    """The state of every command in this module: the digest of each stream, and the streams that links point to."""

    digests: dict[StreamId, int]
    links: dict[StreamId, None]


Decided: TypeAlias = Iterable[tuple[StreamId, Event]]


def amount_of(command_id: str, number: int) -> int:
    """Return the amount of one event of a command."""
    return zlib.crc32(f"{command_id} {number}".encode()) % 100


class _Soak(Command[Seen]):
    id: str

    def initial_state(self) -> Seen:
        return Seen({}, {})

    def apply(self, state: Seen, event: RecordedEvent) -> Seen:
        state.digests[event.stream_id] = digest(state.digests.get(event.stream_id, 0), event.event_id)
        if isinstance(event.data, Linked):
            state.links[event.data.to] = None
        return state

    def _notes(self, state: Seen, boundary: Iterable[StreamId], targets: Sequence[StreamId], to: StreamId | None) -> Decided:
        seen = {str(stream): state.digests.get(stream, 0) for stream in boundary}
        if sum(seen.values()) % 13 == 1:
            # Some commands are refused by a rule that depends on everything that they read.
            raise BusinessRuleViolation("the sum of the digests is 1 modulo 13")
        for number, target in enumerate(targets):
            part = Part(self.id, number, len(targets), seen)
            amount = amount_of(self.id, number)
            yield target, Noted(part, amount) if to is None else Linked(part, amount, to)


class Note(_Soak):
    """Writes one stream, perhaps with a large text."""

    target: StreamId
    count: int = 1
    size: int = 0

    def handle(self, state: Seen) -> Decided:
        for stream, event in self._notes(state, [self.target], [self.target] * self.count, None):
            yield stream, msgspec.structs.replace(event, text="x" * self.size) if self.size else event


class Digest(StreamState, version=1, snapshot_every=20):
    """The digest of one stream; it is stored beside the events."""

    digest: int = 0

    def apply(self, event: RecordedEvent) -> None:
        self.digest = digest(self.digest, event.event_id)


class Keep(Command[Mapping[StreamId, Digest]]):
    """Writes a stream, and reads another; both are read as states that are kept and stored."""

    id: str
    target: Annotated[StreamId, Digest]
    guard: Annotated[StreamId, Digest]

    def handle(self, state: Mapping[StreamId, Digest]) -> Decided:
        seen = {str(stream): state[stream].digest for stream in (self.target, self.guard)}
        yield self.target, Noted(Part(self.id, 0, 1, seen), amount_of(self.id, 0))


class Move(_Soak):
    """Writes two streams."""

    source: StreamId
    target: StreamId

    def handle(self, state: Seen) -> Decided:
        return self._notes(state, [self.source, self.target], [self.source, self.target], None)


class Guarded(_Soak):
    """Writes one stream, and reads another without writing it."""

    guard: StreamId
    target: StreamId

    def handle(self, state: Seen) -> Decided:
        return self._notes(state, [self.guard, self.target], [self.target, self.target], None)


class Link(_Soak):
    """Makes an index point to a stream."""

    index: StreamId
    to: StreamId

    def handle(self, state: Seen) -> Decided:
        return self._notes(state, [self.index], [self.index], self.to)


class Gather(_Soak):
    """Discovers the streams that an index points to, and writes each of them."""

    index: StreamId

    def discover_streams(self, state: Seen) -> Iterable[StreamId]:
        return list(state.links)[:6]

    def handle(self, state: Seen) -> Decided:
        found = list(state.links)[:6]
        return self._notes(state, [self.index, *found], found, None)


SoakCommand: TypeAlias = Note | Keep | Move | Guarded | Link | Gather


def choose(command_id: str, choice: random.Random) -> SoakCommand:
    """Choose a random command. Four of ten write the hot stream, others read a guard or discover streams."""
    cold = choice.choice(COLD)
    match choice.random():
        case share if share < 0.02:
            return Note(command_id, cold, 1, choice.randrange(10_000, 200_000))
        case share if share < 0.22:
            return Note(command_id, HOT, choice.choice((1, 1, 2)))
        case share if share < 0.30:
            return Keep(command_id, choice.choice((HOT, cold)), choice.choice(GUARDS))
        case share if share < 0.45:
            return Note(command_id, cold, choice.choice((1, 2, 5)))
        case share if share < 0.60:
            return Move(command_id, *choice.sample(COLD, 2))
        case share if share < 0.70:
            return Move(command_id, cold, HOT)
        case share if share < 0.83:
            return Guarded(command_id, choice.choice(GUARDS), cold)
        case share if share < 0.90:
            return Note(command_id, choice.choice(GUARDS))
        case share if share < 0.97:
            return Gather(command_id, choice.choice(INDEXES))
        case _:
            return Link(command_id, choice.choice(INDEXES), cold)
