"""The executor: from a command to its result, with its span, its metrics, its timeout and its retries."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import perf_counter
from typing import Any, Final, final

from eventcore.catalogue import CommandInstruments, CommandOutcome
from eventcore.commands.attempt_runner import AttemptRunner, Execution
from eventcore.commands.command import Command, CommandResult
from eventcore.commands.context import CommandType
from eventcore.commands.retry import RetryPolicy
from eventcore.errors import BusinessRuleViolation, CommandTimeout, ConcurrencyConflict, InvalidCommand
from eventcore.events.codec import Codec, check_headers, check_id
from eventcore.recording import IdGenerator, TraceContext
from eventcore.stores.base import EventLog
from eventcore.telemetry import Telemetry

# Commands in progress; further ones wait. It bounds memory: each holds its state and its decision.
_MAX_ACTIVE: Final = 16_384
_DEFAULT_RETRY: Final = RetryPolicy()


@final
class CommandExecutor:
    """Executes commands against one store.

    Args:
        log: where events are read and appended.
        codec: encodes and decodes its events.
        telemetry: where the spans of commands go.
        instruments: where the metrics of commands go.
        timeout: seconds for a command that names no timeout; ``None`` for no limit.
    """

    def __init__(
        self, log: EventLog, codec: Codec, telemetry: Telemetry, instruments: CommandInstruments, timeout: float | None
    ) -> None:
        self._runner = AttemptRunner(log, codec)
        self._codec = codec
        self._telemetry = telemetry
        self._instruments = instruments
        self._timeout = timeout
        self._ids = IdGenerator()
        self._command_types: dict[type[Command[Any]], CommandType] = {}
        self._slots = asyncio.Semaphore(_MAX_ACTIVE)

    def start(self) -> None:
        """Start serving commands on the running loop."""
        self._runner.start()

    async def close(self, timeout: float) -> None:
        """Commit waiting commands within ``timeout`` seconds; fail the others with ``StoreClosed``."""
        await self._runner.close(timeout)

    async def execute(
        self,
        command: Command[Any],
        *,
        retry: RetryPolicy | None,
        timeout: float | None,
        parent: TraceContext | None,
        correlation_id: str | None,
        causation_id: str | None,
        headers: Mapping[str, str] | None,
    ) -> CommandResult:
        """See ``EventStore.execute``."""
        command_type = self._command_types.get(type(command)) or self._add_type(command)
        check_id("correlation_id", correlation_id)
        check_id("causation_id", causation_id)
        checked_headers = check_headers(headers) if headers else {}
        timeout = self._timeout if timeout is None else timeout
        series = command_type.series
        series.active(1)
        begun = perf_counter()
        outcome: CommandOutcome = "error"
        answer: CommandResult | BusinessRuleViolation
        with self._telemetry.span(
            command_type.span_name, parent=parent, correlation_id=correlation_id, causation_id=causation_id
        ) as span:
            execution = Execution(command_type.context(command, span, checked_headers), series)
            try:
                # Most commands have no timeout and do not pay for one.
                if timeout is None:
                    answer = await self._attempts(execution, retry or _DEFAULT_RETRY)
                else:
                    answer = await self._attempts_within(timeout, execution, retry or _DEFAULT_RETRY)
                outcome = "committed" if answer.events else "no_events"
            except BusinessRuleViolation as refusal:
                # A refusal is a normal answer of the domain. Raised inside the `with` block it would mark the span as an
                # error and raise alarms, so it leaves the block as a value and is raised below.
                answer, outcome = refusal, "rejected"
            except ConcurrencyConflict:
                outcome = "conflict"
                raise
            except (asyncio.CancelledError, CommandTimeout):
                outcome = "cancelled"
                raise
            finally:
                series.ended(outcome, perf_counter() - begun, execution.attempts, span if span.recording else None)
                if span.recording:
                    execution.set_span_attributes(outcome)
        if isinstance(answer, BusinessRuleViolation):
            raise answer
        return answer

    def _add_type(self, command: Command[Any]) -> CommandType:
        cls = type(command)
        if not isinstance(command, Command):
            raise InvalidCommand(
                f"execute got {command!r:.80} of type {cls.__name__}; expected an instance of a class derived from Command"
            )
        command_type = self._command_types[cls] = CommandType(cls, self._codec, self._ids, self._instruments)
        return command_type

    async def _attempts_within(self, timeout: float, execution: Execution, retry: RetryPolicy) -> CommandResult:
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                return await self._attempts(execution, retry)
        except TimeoutError as error:
            # Another TimeoutError, for instance one that the command's code raised, is passed on.
            if not limit.expired():
                raise
            sent = execution.attempt is not None and execution.attempt.sent
            consequence = (
                "its append was sent, so its events may be stored: read its streams to find out"
                if sent
                else "nothing was written, so it may be sent again"
            )
            raise CommandTimeout(
                f"{execution.context.plan.name} had no answer within {timeout} s; {consequence}", may_have_committed=sent
            ) from error

    async def _attempts(self, execution: Execution, retry: RetryPolicy) -> CommandResult:
        async with self._slots:
            while True:
                execution.attempts += 1
                attempt = await self._runner.run(execution)
                if attempt is not None:
                    return execution.result(attempt)
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
