"""Calls the handler of a projection, on the event loop or inside a transaction of the store, and reports which event failed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from inspect import isawaitable, iscoroutine
from math import inf
from time import perf_counter
from typing import Any, Final, final

from eventcore.errors import InvalidProjection, LeadershipLost, StoreClosed, StoreError, StoreUnavailable
from eventcore.events import RawEvent, RecordedEvent, StreamId
from eventcore.events.codec import Codec, StoredEvent
from eventcore.ground import forget_earlier_raises
from eventcore.projections.definition import Definition
from eventcore.recording import HistogramCell, Tracer

# Seconds of handler calls before other tasks of the event loop run (see `eventcore.ground.pacing`).
_SLICE: Final = 0.003
# Events that are decoded before other tasks of the event loop run: about 1 ms.
_DECODE_SLICE: Final = 250
# Seconds after which `apply` returns, applied or not, so that slow handlers still get a checkpoint every second.
_MAX_SECONDS: Final = 1.0


class HandlerFailed(Exception):
    """An event could not be decoded or applied.

    Attributes:
        applied: how many events of the call are applied for good; they come before the one that failed.
        index: the index of the event that failed; ``None`` when the batch failed as a whole.
        cause: the exception of the handler, the codec or the database.
    """

    def __init__(self, applied: int, index: int | None) -> None:
        super().__init__(applied, index)
        self.applied = applied
        self.index = index

    @property
    def cause(self) -> BaseException:
        return self.__cause__ or self


@final
class LeaseHold:
    """The lease under which a handler runs.

    Attributes:
        token: the token of the lease, which only grows.
        valid_until: until when this process may believe that it holds the lease, by ``time.perf_counter``.
    """

    __slots__ = ("token", "valid_until")

    def __init__(self, token: int, valid_until: float = inf) -> None:
        self.token = token
        self.valid_until = valid_until


@contextmanager
def refused_commit_as_failure() -> Generator[None]:
    """Around a commit that applies events: raise ``HandlerFailed`` when the store refuses what the handler did.

    A database checks some constraints only at the commit. Backends raise a plain ``StoreError`` for that, and
    ``InvalidProjection`` when the handler has ended the transaction. The subclasses of ``StoreError`` have other reasons, such
    as a lost connection or a lost lease, and pass.
    """
    try:
        yield
    except (InvalidProjection, StoreError) as error:
        if type(error) in (InvalidProjection, StoreError):
            raise HandlerFailed(0, None) from error
        raise


@final
class Handler:
    """The handler of one projection. One task at a time may use it.

    Args:
        definition: what to call, and how.
        codec: decodes the events.
        durations: records the seconds that an event took: each event when ``verbose``, else one mean value a batch.

    Attributes:
        applied: how many events the last ``apply`` has applied; also true when it was cancelled or has failed.
        seconds: how long the handler has run in the last call.
        hold: the lease under which events are applied.
    """

    def __init__(self, definition: Definition, codec: Codec, durations: HistogramCell, *, verbose: bool) -> None:
        self._definition = definition
        self._decode: Callable[[StoredEvent, StreamId], RecordedEvent | RawEvent] = (
            codec.decode_or_raw if definition.unknown == "raw" else codec.decode
        )
        self._durations = durations
        self._record_each = verbose and not definition.batched
        self.applied = 0
        self.seconds = 0.0
        self.hold = LeaseHold(0)

    async def decode(self, rows: Sequence[StoredEvent]) -> list[RecordedEvent | RawEvent]:
        """Decode ``rows``; raises ``HandlerFailed`` for the first one that cannot be decoded."""
        decode, events = self._decode, list[RecordedEvent | RawEvent]()
        for begin in range(0, len(rows), _DECODE_SLICE):
            if begin:
                await asyncio.sleep(0)
            try:
                # The stream id was validated when it was written. `str.__new__` skips that check, which is half of the cost.
                events += [decode(row, str.__new__(StreamId, row.stream_id)) for row in rows[begin : begin + _DECODE_SLICE]]
            except Exception:
                # Decode the slice again, one by one, to find the row.
                for index, row in enumerate(rows[begin : begin + _DECODE_SLICE], begin):
                    try:
                        decode(row, str.__new__(StreamId, row.stream_id))
                    except Exception as error:
                        raise HandlerFailed(0, index) from error
                raise
        return events

    async def apply(self, rows: Sequence[StoredEvent]) -> int:
        """Apply events on the event loop, without a transaction; how many were applied before the time was up.

        Raises:
            HandlerFailed: an event could not be decoded or applied.
        """
        self.applied = 0
        events = await self.decode(rows)
        begun = perf_counter()
        with _CurrentSpan():
            try:
                await self._apply(events)
            finally:
                self._record(begun, self.applied)
        return self.applied

    async def _apply(self, events: Sequence[RecordedEvent | RawEvent]) -> None:
        call, batched, record_each = self._definition.call, self._definition.batched, self._record_each
        arguments, events_per_call = self._arguments(events)
        hold = self.hold
        more = (hold.token,) if self._definition.fenced else ()
        task = asyncio.current_task()
        applied = 0
        begun = now = perf_counter()
        slice_end = now + _SLICE
        try:
            for argument in arguments:
                if now > hold.valid_until:
                    # The process was stopped, or the handler has blocked it: another runner may have the lease by now.
                    raise LeadershipLost("the lease is over by this process's clock; no further event is applied under it")
                try:
                    result = call(argument, *more)
                    if result is not None and isawaitable(result):
                        await result
                except BaseException as error:
                    if not _is_failure(error, task):
                        raise
                    forget_earlier_raises(error)
                    if isinstance(error, (StoreUnavailable, StoreClosed)):
                        # The handler has used a store that is away, which says nothing about the event.
                        raise
                    raise HandlerFailed(applied, None if batched else applied) from error
                applied += events_per_call
                last, now = now, perf_counter()
                if record_each:
                    self._durations.record(now - last)
                if now > slice_end:
                    if now - begun > _MAX_SECONDS:
                        break
                    await asyncio.sleep(0)
                    now = perf_counter()
                    slice_end = now + _SLICE
        finally:
            self.applied = applied

    def in_transaction(self, events: Sequence[RecordedEvent | RawEvent]) -> Callable[[Any], Any]:
        """A function that applies all ``events`` with the transaction that it is called with, or raises ``HandlerFailed``.

        The backend calls it in its transaction: SQLite in its writer thread, PostgreSQL on the event loop, where it awaits it.
        """
        call, batched = self._definition.call, self._definition.batched
        arguments, _ = self._arguments(events)
        # Asked here, because the writer thread of SQLite has no current span.
        current = _CurrentSpan()

        def apply(transaction: Any) -> None:
            begun, index = perf_counter(), 0
            try:
                with current:
                    for index, argument in enumerate(arguments):  # noqa: B007  # read when a call fails
                        if (result := call(argument, transaction)) is not None:
                            _refuse_awaitable(result)
            except BaseException as error:
                # No task can be cancelled while it is in this call.
                if not _is_failure(error, None):
                    raise
                forget_earlier_raises(error)
                raise HandlerFailed(0, None if batched else index) from error
            finally:
                self._record(begun, len(events))

        async def apply_async(transaction: Any) -> None:
            begun, index, task = perf_counter(), 0, asyncio.current_task()
            try:
                with current:
                    for index, argument in enumerate(arguments):  # noqa: B007  # read when a call fails
                        await call(argument, transaction)
            except BaseException as error:
                if not _is_failure(error, task):
                    raise
                forget_earlier_raises(error)
                raise HandlerFailed(0, None if batched else index) from error
            finally:
                self._record(begun, len(events))

        return apply_async if self._definition.asynchronous else apply

    def _arguments(self, events: Sequence[RecordedEvent | RawEvent]) -> tuple[Sequence[Any], int]:
        """The first argument of each call of the handler, and the number of events in one."""
        return ([events], len(events)) if self._definition.batched else (events, 1)

    def _record(self, begun: float, count: int) -> None:
        self.seconds = perf_counter() - begun
        if count and not self._record_each:
            self._durations.record(self.seconds / count)


@final
class _CurrentSpan:
    """Enters the span that was current when this was made: for the handler, whatever thread calls it."""

    def __init__(self) -> None:
        self._span = Tracer.current()

    def __enter__(self) -> None:
        self._entered = None if self._span is None else self._span.enter()

    def __exit__(self, *_: object) -> None:
        if self._span is not None and self._entered is not None:
            self._span.leave(self._entered)


def _is_failure(error: BaseException, task: asyncio.Task[Any] | None) -> bool:
    """Whether a handler has failed by ``error``, which it may have raised by itself.

    ``CancelledError`` is no failure while ``task`` is being cancelled, and ``GeneratorExit`` none when the coroutine is closed,
    which happens outside of its task. ``SystemExit``, ``KeyboardInterrupt`` and a group that holds one of these never are.

    Args:
        error: what the call of the handler has raised.
        task: the task in which the handler runs; ``None`` if nothing can end its call from outside.
    """
    match error:
        case Exception():
            return True
        case BaseExceptionGroup():
            return all(_is_failure(inner, task) for inner in error.exceptions)
        case asyncio.CancelledError():
            return task is None or task.cancelling() == 0
        case GeneratorExit():
            return task is None or _running_task() is task
        case _:
            return False


def _running_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        return None


def _refuse_awaitable(result: object) -> None:
    if iscoroutine(result):
        result.close()
    if isawaitable(result):
        raise TypeError("the handler returned something to await, but nothing awaits it in this transaction; declare it as def")
