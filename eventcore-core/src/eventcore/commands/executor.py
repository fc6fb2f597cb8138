"""The executor: from a command to its result, through load, decision, group commit and retry."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import perf_counter
from typing import Any, Final, final

import msgspec

from eventcore.catalogue import CommandInstruments, CommandOutcome, CommandSeries
from eventcore.commands.attempt import Attempt, CommandContext
from eventcore.commands.batching import Batcher, Outcome
from eventcore.commands.boundary import load_boundary
from eventcore.commands.command import Command
from eventcore.commands.loading import Loader
from eventcore.commands.plan import CommandPlan
from eventcore.commands.retry import RetryPolicy
from eventcore.errors import BusinessRuleViolation, CommandTimeout, ConcurrencyConflict, InvalidCommand, StoreError
from eventcore.events import EventMetadata, RecordedEvent
from eventcore.events.codec import Codec, check_headers, check_id
from eventcore.recording import IdGenerator, Span, TraceContext, traceparent_of
from eventcore.stores.failures import own_copy
from eventcore.telemetry import Telemetry

_MAX_LOADS: Final = 100
_MAX_ACTIVE: Final = 16_384
_NO_HEADERS: Final[Mapping[str, str]] = {}
_DEFAULT_RETRY: Final = RetryPolicy()


@final
class CommandResult(msgspec.Struct, frozen=True, gc=False):
    """What became of a command.

    Attributes:
        attempts: how many it took, 1 when nobody was in the way.
        events: what it wrote, in order; empty when it had nothing to do.
        position: of its last event, else of the state on which it found nothing to do: a reader that has come this far has seen
            what the command saw and did.
    """

    attempts: int
    events: tuple[RecordedEvent, ...]
    position: int


class _CommandType:
    """A command class that has been seen before."""

    __slots__ = ("plan", "series", "span_name")

    def __init__(self, plan: CommandPlan, series: CommandSeries) -> None:
        self.plan = plan
        self.series = series
        self.span_name = f"execute {plan.name}"


class _Execution:
    """How far one command has come."""

    __slots__ = ("attempt", "attempts", "chained", "context", "head", "series")

    def __init__(self, context: CommandContext, series: CommandSeries) -> None:
        self.context = context
        self.series = series
        self.attempts = 0
        self.chained = False
        self.head = 0
        self.attempt: Attempt | None = None


@final
class CommandExecutor:
    """Executes commands against one store."""

    def __init__(
        self,
        loader: Loader,
        batcher: Batcher,
        codec: Codec,
        ids: IdGenerator,
        telemetry: Telemetry,
        instruments: CommandInstruments,
    ) -> None:
        self._loader = loader
        self._batcher = batcher
        self._codec = codec
        self._ids = ids
        self._telemetry = telemetry
        self._instruments = instruments
        self._command_types: dict[type[Command[Any]], _CommandType] = {}
        self._slots = asyncio.Semaphore(_MAX_ACTIVE)

    async def execute(
        self,
        command: Command[Any],
        *,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        parent: TraceContext | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> CommandResult:
        """See ``EventStore.execute``."""
        command_type = self._command_types.get(type(command)) or self._learn(command)
        if correlation_id is not None:
            check_id("correlation_id", correlation_id)
        if causation_id is not None:
            check_id("causation_id", causation_id)
        if headers:
            headers = check_headers(headers)
        series = command_type.series
        series.active(1)
        begun = perf_counter()
        outcome: CommandOutcome = "error"
        answer: CommandResult | BusinessRuleViolation
        with self._telemetry.span(
            command_type.span_name, parent=parent, correlation_id=correlation_id, causation_id=causation_id
        ) as span:
            execution = _Execution(self._context(command, command_type.plan, span, headers), series)
            try:
                if timeout is None:
                    answer = await self._attempts(execution, retry or _DEFAULT_RETRY)
                else:
                    answer = await self._attempts_within(timeout, execution, retry or _DEFAULT_RETRY)
                outcome = "committed" if answer.events else "no_events"
            except BusinessRuleViolation as refusal:
                # Not a fault: it must not make the span an error.
                answer, outcome = refusal, "rejected"
            except ConcurrencyConflict:
                outcome = "conflict"
                raise
            except (asyncio.CancelledError, CommandTimeout):
                outcome = "cancelled"
                raise
            finally:
                series.ended(outcome, perf_counter() - begun, execution.attempts)
                if span.recording:
                    _note(execution, outcome)
        if isinstance(answer, BusinessRuleViolation):
            raise answer
        return answer

    def _learn(self, command: Command[Any]) -> _CommandType:
        cls = type(command)
        if not isinstance(command, Command):
            raise InvalidCommand(
                f"execute got {command!r:.80} of type {cls.__name__}; expected an instance of a class derived from Command"
            )
        plan = CommandPlan(cls)
        command_type = self._command_types[cls] = _CommandType(plan, self._instruments.bind(plan.name))
        return command_type

    def _context(self, command: Command[Any], plan: CommandPlan, span: Span, headers: Mapping[str, str]) -> CommandContext:
        traceparent = traceparent_of(span.trace_id, span.span_id, span.trace_flags) if span.trace_id else ""
        metadata = EventMetadata(
            plan.name,
            traceparent,
            span.tracestate,
            span.correlation_id,
            span.causation_id,
            dict(headers) if headers else {},
        )
        return CommandContext(command, plan, self._codec, self._ids, span, metadata, self._codec.encode_metadata(metadata))

    async def _attempts_within(self, timeout: float, execution: _Execution, retry: RetryPolicy) -> CommandResult:
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                return await self._attempts(execution, retry)
        except TimeoutError as error:
            if not limit.expired():
                raise
            sent = execution.attempt is not None and execution.attempt.sent
            consequence = (
                "its append was on its way, so that its events may stand: read its streams to know"
                if sent
                else "nothing was written, so that it may be sent again"
            )
            raise CommandTimeout(
                f"{execution.context.plan.name} had no answer within {timeout} s; {consequence}", may_have_committed=sent
            ) from error

    async def _attempts(self, execution: _Execution, retry: RetryPolicy) -> CommandResult:
        async with self._slots:
            while True:
                execution.attempts += 1
                attempt = await self._attempt(execution)
                if attempt is not None:
                    return self._result(execution, attempt)
                if execution.attempts >= retry.attempts:
                    execution.series.conflict("escaped", execution.attempts)
                    raise ConcurrencyConflict(
                        f"{execution.context.plan.name}: other writers changed its streams in each of {execution.attempts} "
                        "attempts; try again later, or allow more with RetryPolicy(attempts=…)"
                    )
                execution.series.retry("version")
                execution.context.span.add_event("retry", {"reason": "version", "attempt": execution.attempts})
                if delay := retry.delay(execution.attempts):
                    begun = perf_counter()
                    await asyncio.sleep(delay)
                    execution.series.phase("backoff", perf_counter() - begun)

    async def _attempt(self, execution: _Execution) -> Attempt | None:
        """One attempt: the one that was decided, ``None`` after a conflict."""
        loop = asyncio.get_running_loop()
        series = execution.series
        load = discover = decide = 0.0
        from_cache = execution.attempts == 1
        for _ in range(_MAX_LOADS):
            read = await load_boundary(self._loader, execution.context, from_cache=from_cache)
            execution.head = read.head
            future: asyncio.Future[Outcome | StoreError] = loop.create_future()
            attempt = execution.attempt = Attempt(
                execution.context,
                read.state,
                read.versions,
                read_from_store=read.read_from_store,
                one_snapshot=read.one_snapshot,
                future=future,
            )
            submitted = perf_counter()
            self._batcher.submit(attempt, read.cache_epoch)
            outcome = await future
            load += read.load_seconds
            discover += read.discover_seconds
            decide += attempt.decided_in
            if outcome is Outcome.RELOAD:
                from_cache = False
                continue
            series.load(load)
            if discover:
                series.phase("discover", discover)
            series.decide(decide)
            series.append(perf_counter() - submitted - attempt.decided_in)
            series.streams_read(len(read.versions))
            series.loaded(read.events)
            execution.chained = attempt.chained
            if outcome is Outcome.COMMITTED:
                return attempt
            if outcome is Outcome.CONFLICT:
                return None
            raise own_copy(outcome)
        return None

    def _result(self, execution: _Execution, attempt: Attempt) -> CommandResult:
        if attempt.failure is not None:
            if execution.attempts > 1:
                execution.series.conflict("absorbed", execution.attempts - 1)
            raise attempt.failure
        events = tuple([new.recorded for new in attempt.events])
        series = execution.series
        if execution.attempts > 1:
            series.conflict("absorbed", execution.attempts - 1)
        if execution.chained:
            series.conflict("chained")
        if events:
            series.emitted(len(events))
            series.streams_written(1 if len(events) == 1 else len({event.stream_id for event in events}))
            return CommandResult(execution.attempts, events, events[-1].position)
        # All that it has seen: what was read, and what came while it waited.
        return CommandResult(execution.attempts, events, max([execution.head, *(event.position for event in attempt.missed)]))


def _note(execution: _Execution, outcome: CommandOutcome) -> None:
    attempt = execution.attempt
    execution.context.span.set_attributes(
        {
            "eventcore.command.type": execution.context.plan.name,
            "eventcore.attempts": execution.attempts,
            "eventcore.outcome": outcome,
            "eventcore.streams": len(attempt.versions) if attempt is not None else 0,
            "eventcore.events": len(attempt.events) if attempt is not None and outcome == "committed" else 0,
        }
    )
