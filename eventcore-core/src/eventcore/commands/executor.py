"""The executor: from a command to its result, with its span, its metrics, its timeout and its retries."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from time import monotonic, perf_counter
from typing import Any, Final, TypeAlias, final

from eventcore.catalogue import CommandInstruments, CommandOutcome
from eventcore.commands.attempt_runner import AttemptRunner, Execution
from eventcore.commands.command import Command, CommandResult
from eventcore.commands.context import CommandType
from eventcore.commands.keys import CommandKeys
from eventcore.commands.retry import RetryPolicy
from eventcore.commands.streams.cache import DEFAULT_CACHE_BYTES
from eventcore.commands.streams.speculation import SpeculationMode, speculation_mode
from eventcore.errors import BusinessRuleViolation, CommandTimeout, ConcurrencyConflict, InvalidCommand, StoreUnavailable
from eventcore.events.codec import Codec, check_headers, check_id
from eventcore.events.fingerprint import fingerprint
from eventcore.exporting.logs import bounded_logger
from eventcore.ground import CommonTimeout, Slots
from eventcore.recording import IdGenerator, Span, TraceContext
from eventcore.stores.base import EventLog, append_hints
from eventcore.stores.values import CommandKey
from eventcore.telemetry import Telemetry

# Commands in progress; further ones wait. It bounds memory: each holds its state and its decision.
_MAX_ACTIVE: Final = 16_384
_DEFAULT_RETRY: Final = RetryPolicy()
_logger: Final = bounded_logger("eventcore.commands")
# Seconds, and part of the timeout of a call to the store, by which a command may take longer than one call.
_LATER: Final = 0.5
_LATER_PART: Final = 0.05
# Part of a slow command's time that is named though it belongs to no phase.
_WORTH_SAYING: Final = 0.1

_Run: TypeAlias = Callable[[Execution, RetryPolicy], Awaitable[CommandResult]]


@final
class CommandExecutor:
    """Executes commands against one store.

    Args:
        log: where events are read and appended.
        codec: encodes and decodes its events.
        telemetry: where the spans of commands go.
        instruments: where the metrics of commands go.
        timeout: seconds for a command that names no timeout; ``None`` for no limit.
        cache_bytes: memory for the events and states of streams that are kept between commands.
        store_timeout: seconds that one call to the store may take, and so a whole command; ``None`` for no limit.
        idempotency_ttl: seconds for which idempotency keys are kept.
        slow_command: seconds from which on a command is logged as slow; ``None`` for never.
    """

    def __init__(
        self,
        log: EventLog,
        codec: Codec,
        telemetry: Telemetry,
        instruments: CommandInstruments,
        timeout: float | None,
        idempotency_ttl: float,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        store_timeout: float | None = None,
        slow_command: float | None = None,
    ) -> None:
        self._runner = AttemptRunner(log, codec, instruments, cache_bytes)
        self._keys = CommandKeys(log, codec)
        self._idempotency_ttl = idempotency_ttl
        self._codec = codec
        self._speculation: Final[SpeculationMode] = speculation_mode() if append_hints(log).speculate else "off"
        self._telemetry = telemetry
        self._instruments = instruments
        self._timeout = timeout
        self._slow = math.inf if slow_command is None else slow_command
        self._limit: CommonTimeout | None = None
        if store_timeout is not None:
            # A call that fails by its own timeout says more about the reason, so it comes first.
            self._limit = CommonTimeout(store_timeout + min(_LATER, _LATER_PART * store_timeout))
        self._ids = IdGenerator()
        self._command_types: dict[type[Command[Any]], CommandType] = {}
        self._slots = Slots(_MAX_ACTIVE)
        self._running = 0
        # Set when the last command has ended, once the executor is being closed.
        self._none_running: asyncio.Event | None = None

    def start(self) -> None:
        """Start serving commands on the running loop."""
        self._runner.start()
        self._keys.start()

    async def close(self, timeout: float) -> None:
        """Let the commands that are running end, within ``timeout`` seconds; fail the others with ``StoreClosed``.

        The caller sees to it that no command begins from now on.
        """
        deadline = monotonic() + timeout
        # First the commands, then the batcher: a command that is still loading is yet to be submitted to it.
        await self.wait_until_idle(timeout)
        await self._runner.close(max(0.0, deadline - monotonic()))
        # After the runner: a command that waits may have to look its key up again.
        await self._keys.close()
        if self._limit is not None:
            self._limit.close()

    async def wait_until_idle(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds until no command runs; return whether none does."""
        if self._running:
            if self._none_running is None:
                self._none_running = asyncio.Event()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._none_running.wait()
        return not self._running

    async def execute(
        self,
        command: Command[Any],
        retry: RetryPolicy | None,
        timeout: float | None,
        parent: TraceContext | None,
        correlation_id: str | None,
        causation_id: str | None,
        headers: Mapping[str, str] | None,
        idempotency_key: str | None,
    ) -> CommandResult:
        """See ``EventStore.execute``.

        A refusal is a normal answer of the domain. Raised inside the ``with`` block it would mark the span as an error and
        raise alarms, so it leaves the block as a value and is raised behind it.
        """
        command_type = self._command_types.get(type(command)) or self._add_type(command)
        checked_headers = _checked(retry, parent, correlation_id, causation_id, headers)
        key = None if idempotency_key is None else self._key(command, idempotency_key)
        series = command_type.series
        series.active(1)
        begun = perf_counter()
        outcome: CommandOutcome = "error"
        with self._telemetry.span(
            command_type.span_name, parent=parent, correlation_id=correlation_id, causation_id=causation_id
        ) as span:
            execution = Execution(command_type.context(command, span, checked_headers), series, key=key)
            self._running += 1
            limit, run = self._way(timeout, key)
            task = None if limit is None else limit.begin()
            try:
                result = await run(execution, retry or _DEFAULT_RETRY)
                outcome = execution.success(result)
                answer: CommandResult | BusinessRuleViolation = result
            except BusinessRuleViolation as refusal:
                answer, outcome = refusal, "rejected"
            except ConcurrencyConflict:
                outcome = "conflict"
                raise
            except asyncio.CancelledError as error:
                if limit is None or task is None or not limit.expired(task):
                    outcome = "cancelled"
                    raise
                raise _no_answer(execution, limit.seconds) from error
            except BaseException as error:
                series.failed(error)
                raise
            finally:
                if limit is not None and task is not None:
                    limit.end(task)
                self._ended(execution, outcome, perf_counter() - begun)
        if isinstance(answer, BusinessRuleViolation):
            raise answer
        return answer

    def _way(self, timeout: float | None, key: CommandKey | None) -> tuple[CommonTimeout | None, _Run]:
        """Which limit of time a command has in common with others, and what runs it."""
        run = self._attempts if key is None else self._once
        timeout = self._timeout if timeout is None else timeout
        # Most commands have no timeout of their own and do not pay for one. What remains is one deadline for loading,
        # appending and retries together.
        limit = self._limit
        if timeout is not None and (limit is None or timeout < limit.seconds):
            return None, partial(self._within, timeout, run)
        return limit, run

    def _ended(self, execution: Execution, outcome: CommandOutcome, seconds: float) -> None:
        self._running -= 1
        if self._none_running is not None and not self._running:
            self._none_running.set()
        span = execution.context.span
        recording = span.recording
        execution.series.ended(outcome, seconds, execution.attempts, span if recording else None)
        if recording:
            execution.set_span_attributes(outcome)
        if seconds >= self._slow:
            _log_slow(execution, outcome, seconds)

    def _add_type(self, command: Command[Any]) -> CommandType:
        cls = type(command)
        if not isinstance(command, Command):
            raise InvalidCommand(
                f"execute got {command!r:.80} of type {cls.__name__}; expected an instance of a class derived from Command"
            )
        command_type = self._command_types[cls] = CommandType(cls, self._codec, self._ids, self._instruments, self._speculation)
        return command_type

    def _key(self, command: Command[Any], key: str) -> CommandKey:
        check_id("idempotency_key", key)
        return CommandKey(key, fingerprint(command), 0, self._idempotency_ttl)

    async def _within(self, timeout: float, run: _Run, execution: Execution, retry: RetryPolicy) -> CommandResult:
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                return await run(execution, retry)
        except TimeoutError as error:
            # Another TimeoutError, for instance one that the command's code raised, is passed on.
            if not limit.expired():
                raise
            consequence, sent = _consequence(execution)
            raise CommandTimeout(
                f"{execution.context.plan.name} had no answer within {timeout} s; {consequence}", may_have_committed=sent
            ) from error

    async def _once(self, execution: Execution, retry: RetryPolicy) -> CommandResult:
        """Like ``_attempts``, for a command with an idempotency key."""
        assert execution.key is not None
        result, execution.repeated = await self._keys.execute(execution.key, partial(self._attempts, execution, retry))
        return result

    async def _attempts(self, execution: Execution, retry: RetryPolicy) -> CommandResult:
        if not self._slots.take():
            await self._slots.wait()
        try:
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
                    waited = perf_counter() - begun
                    execution.backoff += waited
                    execution.series.phase("backoff", waited)
        finally:
            self._slots.give_back()


def _log_slow(execution: Execution, outcome: CommandOutcome, seconds: float) -> None:
    """Log a slow command. Its span is current, so that the record can have its trace."""
    ended = execution.phase_seconds()
    phases = [f"{phase} {took:.3f} s" for phase, took in ended.items()]
    in_none = seconds - sum(ended.values())
    if in_none > _WORTH_SAYING * seconds:
        unfinished = outcome in ("error", "cancelled") and (not ended or execution.attempts > 1)
        phases.append(f"{_unfinished(execution)} for {in_none:.3f} s" if unfinished else f"other {in_none:.3f} s")
    _logger.warning(
        "slow command %s: %.3f s, outcome %s, attempts: %d; phases: %s; trace %032x",
        *(execution.context.plan.name, seconds, outcome, execution.attempts),
        *(", ".join(phases) or "none had ended", execution.context.span.trace_id),
    )


def _unfinished(execution: Execution) -> str:
    """What a command without an answer waited for."""
    if not execution.attempts:
        if execution.key is None:
            return "waiting for other commands"
        return "the look-up of its idempotency key, or the first call with it, without an answer"
    if execution.attempts > 1:
        return "the last attempt without an answer"
    if execution.attempt is None:
        return "load without an answer"
    return "append without an answer" if execution.attempt.sent else "waiting for the batch before it"


def _checked(
    retry: object, parent: object, correlation_id: str | None, causation_id: str | None, headers: Mapping[str, str] | None
) -> dict[str, str]:
    """The caller's headers, not shared with it, if they and the ids may be stored, and the other arguments fit."""
    if retry is not None or parent is not None:
        _check_given(retry, parent)
    if correlation_id is not None or causation_id is not None:
        check_id("correlation_id", correlation_id)
        check_id("causation_id", causation_id)
    return {} if headers is None else check_headers(headers)


def _check_given(retry: object, parent: object) -> None:
    """Refuse at once what would fail at the first conflict only, or be ignored."""
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise ValueError(f"retry={retry!r:.80}; expected a RetryPolicy, such as RetryPolicy(attempts=3)")
    # Not `isinstance`, which asks the object itself for its `__class__`.
    if parent is not None and not issubclass(type(parent), (TraceContext, Span)):
        raise ValueError(
            f"parent={parent!r:.80}; expected a TraceContext, such as TraceContext.from_traceparent(…) gives, or a span"
        )


def _no_answer(execution: Execution, seconds: float) -> StoreUnavailable:
    """The error of a command that has met the common limit, which is counted."""
    consequence, sent = _consequence(execution)
    error = StoreUnavailable(
        f"{execution.context.plan.name} had no answer of the store within {seconds:g} s, all attempts together "
        f"({execution.attempts}); {consequence}",
        may_have_committed=sent,
    )
    execution.series.failed(error)
    return error


def _consequence(execution: Execution) -> tuple[str, bool]:
    """What has become of a command without answer, and whether its events may be stored."""
    if execution.attempt is not None and execution.attempt.sent:
        return "its append was sent, so its events may be stored: read its streams to find out", True
    return "nothing was written, so it may be sent again", False
