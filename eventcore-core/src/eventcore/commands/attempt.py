"""One attempt of one command: its state, its decision and its outcome."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Sequence
from time import perf_counter
from typing import TypeAlias, final

import msgspec

from eventcore.commands.boundary import BoundaryState
from eventcore.commands.context import CommandContext
from eventcore.commands.streams.speculation import Refusal
from eventcore.errors import InvalidCommand, StoreError
from eventcore.events import RecordedEvent
from eventcore.ground import forget_earlier_raises
from eventcore.stores.values import CommandKey, NewEvent


class Outcome(enum.Enum):
    """How the batcher answers an attempt."""

    COMMITTED = "committed"
    """The decision is final, and its events, if any, are durable."""
    CONFLICT = "conflict"
    """Another writer changed one of the command's streams first."""
    RELOAD = "reload"
    """The attempt must read its streams again before it can be decided. Reasons: it needs further streams; it missed more
    events than the cache holds; its cached state was behind the store; or it writes nothing and was decided on cached state,
    which only an append or a read can prove to be current."""
    REPEATED = "repeated"
    """The store knows the command's idempotency key. Nothing of the attempt was stored."""


Answer: TypeAlias = Outcome | StoreError


@final
class Attempt(msgspec.Struct, eq=False):
    """One attempt of a command. The executor makes it, the batcher decides and answers it; a retry is a new attempt.

    Attributes:
        context: what all attempts of the command share.
        boundary: the state and the stream versions to decide on. ``catch_up`` updates the state, the batcher the versions.
        future: receives the answer.
        key: the command's idempotency key, if it has one.
        sent: whether the attempt has joined a batch. From then on it cannot be withdrawn.
        later_events: events that were applied after the state was read. They get their positions when they are committed.
        events: the decision.
        refusal: what the store has found in the command's streams, if it refused the append of the attempt and says so.
        failure: the exception that the command's code raised, or the error that describes its invalid decision.
        decide_seconds: how long the decision took.
    """

    context: CommandContext
    boundary: BoundaryState
    future: asyncio.Future[Answer]
    key: CommandKey | None = None
    sent: bool = False
    later_events: Sequence[RecordedEvent] = ()
    events: Sequence[NewEvent] = ()
    refusal: Refusal | None = None
    failure: BaseException | None = None
    decide_seconds: float = 0.0

    def catch_up(self, events: Sequence[RecordedEvent]) -> bool:
        """Apply events that other commands committed, or are about to commit, after the state was read.

        Returns false if the command then has other streams than it has read.
        """
        self.later_events = events
        context = self.context
        if not events and not context.plan.discovers:
            return True
        # The command's code runs in the batcher's task. Its exceptions are for the caller of this command only, and the other
        # commands of the batch must go on, so every exception is caught, `BaseException` included.
        try:
            return context.surroundings.run(self._apply, events)
        except BaseException as error:  # noqa: BLE001  # see above
            self.failure = _as_failure(error)
            return True

    def _apply(self, events: Sequence[RecordedEvent]) -> bool:
        """Apply events to the state, and check that each round of discovery would find the same streams again."""
        context, boundary = self.context, self.boundary
        boundary.state = context.apply(boundary.state, events)
        if not context.plan.discovers:
            return True
        for one in boundary.rounds:
            one.state = context.apply(one.state, [event for event in events if event.stream_id in one.versions])
            if context.discover(one.state, one.versions).keys() != one.found:
                return False
        return not context.discover(boundary.state, boundary.versions)

    def decide(self, now_ns: int) -> Sequence[NewEvent]:
        """Call ``handle``. A failure is kept for the caller and counts as a decision without events."""
        begun = perf_counter()
        try:
            if self.failure is None:
                boundary, context = self.boundary, self.context
                self.events = context.surroundings.run(context.decide, boundary.state, boundary.versions, now_ns)
        except BaseException as error:  # noqa: BLE001  # as in `catch_up`
            self.failure = _as_failure(error)
        self.decide_seconds = perf_counter() - begun
        return self.events


def _as_failure(error: BaseException) -> BaseException:
    forget_earlier_raises(error)
    if not isinstance(error, asyncio.CancelledError):
        return error
    # A CancelledError of the command's code must not be raised in the caller's task: it would look like its cancellation.
    wrapped = InvalidCommand(f"the command raised {type(error).__name__}, which only asyncio may")
    wrapped.__cause__ = error
    return wrapped
