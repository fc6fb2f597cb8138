"""Attempts: load the streams of a command, submit it to the batcher, load again while the batcher asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic, perf_counter
from typing import Final, TypeAlias, cast, final

import msgspec

from eventcore.catalogue import CommandInstruments, CommandOutcome, CommandSeries
from eventcore.commands.attempt import Answer, Attempt, Outcome
from eventcore.commands.batching import Batcher
from eventcore.commands.boundary import BoundaryState, boundary_at_once, load_boundary
from eventcore.commands.command import CommandResult
from eventcore.commands.context import CommandContext
from eventcore.commands.keys import KeyKnown
from eventcore.commands.streams.cache import StreamCache
from eventcore.commands.streams.folding import States
from eventcore.commands.streams.loading import Loader
from eventcore.commands.streams.redaction_watch import RedactionWatch
from eventcore.commands.streams.snapshots import SnapshotWriter
from eventcore.commands.streams.speculation import Refusal, RefusedStreams
from eventcore.events.codec import Codec
from eventcore.recording.values import AttributeValue
from eventcore.stores.base import EventLog
from eventcore.stores.values import CommandKey

# Loads in one attempt; after that many, the attempt counts as a conflict.
_MAX_LOADS: Final = 100
# Seconds of closing that storing the last snapshots may take.
_SAVING: Final = 1.0


_Phases: TypeAlias = tuple[float, float, float, float]
_PHASES: Final = ("load", "discover", "decide", "append", "backoff")
# See `Span.take_plain`.
_LONGEST_PLAIN: Final = 1024


@final
class Execution(msgspec.Struct, eq=False):
    """The execution of one command, over all its attempts.

    Attributes:
        context: what all attempts share.
        series: where its figures are recorded.
        attempts: attempts begun.
        attempt: the newest attempt that was submitted.
        key: the command's idempotency key; ``None`` if it has none.
        repeated: whether the result is that of an earlier call with the key.
        phases: seconds of loading, discovering, deciding and appending, over all attempts that had an answer.
        backoff: seconds of waiting before retries.
    """

    context: CommandContext
    series: CommandSeries
    attempts: int = 0
    attempt: Attempt | None = None
    key: CommandKey | None = None
    repeated: bool = False
    phases: _Phases = (0.0, 0.0, 0.0, 0.0)
    backoff: float = 0.0

    def result(self, attempt: Attempt) -> CommandResult:
        """Return the result of a decided attempt, or raise the exception of the command's code.

        Counts the conflicts that were resolved. ``chained``: decided again in the same batch. ``absorbed``: retried with
        success. (``escaped``, raised to the caller, is counted by the executor.)
        """
        series = self.series
        if self.attempts > 1:
            series.conflict("absorbed", self.attempts - 1)
        if attempt.failure is not None:
            raise attempt.failure
        if attempt.later_events:
            series.conflict("chained")
        own_copy = self.context.codec.own_copy
        if len(attempt.events) == 1:
            (new,) = attempt.events
            event = own_copy(new.recorded, new.data)
            series.emitted(1)
            series.streams_written(1)
            return CommandResult(self.attempts, (event,), event.position)
        if self.context.codec.shares_all and not self.context.metadata.headers:
            events = tuple([new.recorded for new in attempt.events])
        else:
            events = tuple([own_copy(new.recorded, new.data) for new in attempt.events])
        if events:
            series.emitted(len(events))
            series.streams_written(len({event.stream_id for event in events}))
            return CommandResult(self.attempts, events, events[-1].position)
        # The last event that the command has seen: read from the store, or applied while it waited.
        position = max([attempt.boundary.head, *(event.position for event in attempt.later_events)])
        return CommandResult(self.attempts, events, position)

    def success(self, result: CommandResult) -> CommandOutcome:
        """The outcome of a command that has a result."""
        if self.repeated:
            return "repeated"
        return "committed" if result.events else "no_events"

    def set_span_attributes(self, outcome: CommandOutcome) -> None:
        """Describe the ended command in its span."""
        attempt = self.attempt
        name = self.context.plan.name
        # Written out, because each command does so: a loop over the phases takes three times as long.
        attributes: dict[str, AttributeValue] = {
            "eventcore.command.type": name,
            "eventcore.attempts": self.attempts,
            "eventcore.outcome": outcome,
            "eventcore.streams": len(attempt.boundary.versions) if attempt is not None else 0,
            "eventcore.events": len(attempt.events) if attempt is not None and outcome == "committed" else 0,
        }
        load, discover, decide, append = self.phases
        if load:
            attributes["eventcore.phase.load"] = load
        if discover:
            attributes["eventcore.phase.discover"] = discover
        if decide:
            attributes["eventcore.phase.decide"] = decide
        if append:
            attributes["eventcore.phase.append"] = append
        if self.backoff:
            attributes["eventcore.phase.backoff"] = self.backoff
        if name.isascii() and len(name) <= _LONGEST_PLAIN:
            self.context.span.take_plain(attributes)
        else:
            self.context.span.take_attributes(attributes)

    def answered(self, phases: _Phases, boundary: BoundaryState) -> None:
        """Record an attempt that had an answer, with the seconds of its phases."""
        series = self.series
        load, discover, decide, append = phases
        series.load(load)
        if discover:
            series.phase("discover", discover)
        series.decide(decide)
        series.append(append)
        series.streams_read(len(boundary.versions))
        (series.loaded_from_states if boundary.from_states else series.loaded)(boundary.events)
        before = self.phases
        self.phases = phases if self.attempts == 1 else cast(_Phases, tuple(map(sum, zip(before, phases, strict=True))))

    def phase_seconds(self) -> dict[str, float]:
        """The seconds of each phase that took any, over all attempts that had an answer."""
        return {phase: seconds for phase, seconds in zip(_PHASES, (*self.phases, self.backoff), strict=True) if seconds}


@final
class AttemptRunner:
    """The stream cache, loader and batcher of one store, and the way of an attempt through them."""

    def __init__(self, log: EventLog, codec: Codec, instruments: CommandInstruments, cache_bytes: int) -> None:
        self._cache = cache = StreamCache(cache_bytes)
        self._snapshots = SnapshotWriter(log, cache, instruments)
        self._states = States(cache, self._snapshots.due, instruments.count_snapshot_read)
        self._loader = Loader(log, codec, cache, self._states)
        self._batcher = Batcher(log, cache, RefusedStreams(codec, cache))
        self._redactions = RedactionWatch(log, cache)
        self._new_future: Callable[[], asyncio.Future[Answer]] = asyncio.Future

    def start(self) -> None:
        """Start the tasks on the running loop."""
        self._new_future = asyncio.get_running_loop().create_future
        self._loader.start()
        self._batcher.start()
        self._snapshots.start()
        self._redactions.start()

    async def close(self, timeout: float) -> None:
        """Commit waiting commands within ``timeout`` seconds; fail the others with ``StoreClosed``."""
        deadline = monotonic() + timeout
        await self._redactions.close()
        await self._batcher.close(timeout)
        # After the batcher: a waiting command may have to load again before it can be committed.
        await self._loader.close()
        await self._snapshots.close(min(_SAVING, max(0.0, deadline - monotonic())))

    async def run(self, execution: Execution) -> Attempt | None:
        """Run one attempt. Returns it once it is decided, or ``None`` after a conflict.

        Only the first attempt of a command uses the cache. A conflict shows that the cache is behind, so a retry reads the
        store.

        Raises:
            StoreError: the store failed, or was closed.
            KeyKnown: the store knows the command's idempotency key.
        """
        context = execution.context
        key = execution.key
        if key is not None:
            key = msgspec.structs.replace(key, attempts=execution.attempts)
        load = discover = decide = 0.0
        from_cache = execution.attempts == 1
        needs = context.plan.streams(context.command)
        refusal: Refusal | None = None
        for _ in range(_MAX_LOADS):
            boundary, look = None, True
            if from_cache and not context.plan.discovers:
                boundary = boundary_at_once(self._loader, self._states, context, needs)
                look = boundary is None and context.plan.folds and all(map(self._cache.begins, needs))  # too long for that
            if boundary is None:
                boundary = await load_boundary(
                    self._loader, self._states, context, needs, from_cache=from_cache, refusal=refusal, look=look
                )
            attempt = Attempt(context, boundary, self._new_future(), key)
            # Set before the wait: a timeout reads from it whether the append was sent.
            execution.attempt = attempt
            submitted = perf_counter()
            self._batcher.submit(attempt)
            # Cancellation point. It cancels only this future: the batcher drops the attempt if it is not yet sent, and the
            # append of the whole batch goes on if it is.
            answer = await attempt.future
            load += boundary.load_seconds
            discover += boundary.discover_seconds
            decide += attempt.decide_seconds
            if answer is Outcome.RELOAD:
                attempt.sent = False  # nothing of it was stored, whatever ends the command from now on
                if boundary.assumes_empty:
                    context.speculation.learn(right=False)
                from_cache, refusal = False, attempt.refusal
                continue
            if boundary.assumes_empty or boundary.were_empty is not None:
                # A command that is not appended would be read in any case.
                was_appended = attempt.sent and (bool(attempt.events) or key is not None)
                context.speculation.learn(right=boundary.assumes_empty or (bool(boundary.were_empty) and was_appended))
            append = perf_counter() - submitted - attempt.decide_seconds
            execution.answered((load, discover, decide, append), boundary)
            if answer is Outcome.COMMITTED:
                return attempt
            if answer is Outcome.CONFLICT:
                attempt.sent = False
                return None
            if answer is Outcome.REPEATED:
                raise KeyKnown
            raise answer
        return None
