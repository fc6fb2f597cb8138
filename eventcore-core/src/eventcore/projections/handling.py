"""Calling a projection's handler: in slices that leave the event loop its turns, with failures that say how far it came."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from inspect import isawaitable, iscoroutine
from time import perf_counter
from typing import Any, Final, final

from eventcore.events import RecordedEvent, StreamId
from eventcore.events.codec import Codec, StoredEvent
from eventcore.projections.definition import Definition
from eventcore.recording import HistogramCell

# Seconds of handlers and decoding on the event loop before others have their turn.
_SLICE: Final = 0.003
# Seconds after which what has been applied is kept, however much is left.
_BATCH: Final = 1.0
_DECODE_AT_ONCE: Final = 250


class HandlerFailed(Exception):
    """An event could not be applied; the cause is why.

    Attributes:
        applied: how many events before it are applied for good.
        at: which one it is, ``None`` when only the batch as a whole is known to have failed.
    """

    def __init__(self, applied: int, at: int | None) -> None:
        super().__init__(applied, at)
        self.applied = applied
        self.at = at


@final
class Handling:
    """The handler of one projection.

    Args:
        definition: what to call, and how.
        codec: reads the events.
        durations: gets the time that the handler took for an event: each one when ``verbose``, else one mean value a batch.
    """

    def __init__(self, definition: Definition, codec: Codec, durations: HistogramCell, *, verbose: bool) -> None:
        self._definition = definition
        self._codec = codec
        self._durations = durations
        self._verbose = verbose and not definition.batched
        # Of the last call: how many events were applied, also when it was cancelled, and the seconds that the handler took.
        self.applied = 0
        self.seconds = 0.0

    async def apply(self, rows: Sequence[StoredEvent]) -> int:
        """Apply events outside of any transaction; how many it were before the time was up.

        Raises:
            HandlerFailed: one of them could not be applied.
        """
        self.applied = 0
        events = await self.decode(rows)
        begun = perf_counter()
        try:
            if self._definition.batched:
                await self._apply_together(events)
            else:
                await self._apply_each(events)
        finally:
            self._record(begun, self.applied)
        return self.applied

    def inside(self, events: Sequence[RecordedEvent]) -> Callable[[Any], Any]:
        """What applies all the events within a transaction; it raises ``HandlerFailed``."""
        return self._inside_async(events) if self._definition.asynchronous else self._inside(events)

    async def decode(self, rows: Sequence[StoredEvent]) -> list[RecordedEvent]:
        """The events that stand in ``rows``.

        Raises:
            HandlerFailed: one of them cannot be read.
        """
        decode, events = self._codec.decode, list[RecordedEvent]()
        for begin in range(0, len(rows), _DECODE_AT_ONCE):
            if begin:
                await asyncio.sleep(0)
            try:
                # What was a stream id when it was written need not be checked again: that would take half of the time.
                events += [decode(row, str.__new__(StreamId, row.stream_id)) for row in rows[begin : begin + _DECODE_AT_ONCE]]
            except Exception:  # which of them it is, and why, is found out one by one
                for at in range(begin, len(rows)):
                    _decode_one(decode, rows, at)
                raise
        return events

    async def _apply_each(self, events: Sequence[RecordedEvent]) -> None:
        call, verbose = self._definition.call, self._verbose
        done = 0
        begun = now = perf_counter()
        slice_end = now + _SLICE
        try:
            for event in events:
                try:
                    result = call(event)
                    if result is not None and isawaitable(result):
                        await result
                except asyncio.CancelledError as error:
                    if _is_being_cancelled():
                        raise
                    raise HandlerFailed(done, done) from error
                except Exception as error:
                    raise HandlerFailed(done, done) from error
                done += 1
                last, now = now, perf_counter()
                if verbose:
                    self._durations.record(now - last)
                if now > slice_end:
                    if now - begun > _BATCH:
                        break
                    await asyncio.sleep(0)
                    now = perf_counter()
                    slice_end = now + _SLICE
        finally:
            self.applied = done

    async def _apply_together(self, events: Sequence[RecordedEvent]) -> None:
        try:
            result = self._definition.call(events)
            if result is not None and isawaitable(result):
                await result
        except asyncio.CancelledError as error:
            if _is_being_cancelled():
                raise
            raise HandlerFailed(0, None) from error
        except Exception as error:
            raise HandlerFailed(0, None) from error
        self.applied = len(events)

    def _inside(self, events: Sequence[RecordedEvent]) -> Callable[[Any], None]:
        call = self._definition.call

        def apply(transaction: Any) -> None:
            begun = perf_counter()
            at: int | None = None
            try:
                if self._definition.batched:
                    _refuse_awaitable(call(events, transaction))
                else:
                    for at, event in enumerate(events):  # noqa: B007  # read when one fails
                        if (result := call(event, transaction)) is not None:
                            _refuse_awaitable(result)
            except Exception as error:
                raise HandlerFailed(0, at) from error
            finally:
                self._record(begun, len(events))

        return apply

    def _inside_async(self, events: Sequence[RecordedEvent]) -> Callable[[Any], Any]:
        call = self._definition.call

        async def apply(transaction: Any) -> None:
            begun = perf_counter()
            at: int | None = None
            try:
                if self._definition.batched:
                    await call(events, transaction)
                else:
                    for at, event in enumerate(events):  # noqa: B007  # read when one fails
                        await call(event, transaction)
            except Exception as error:
                raise HandlerFailed(0, at) from error
            finally:
                self._record(begun, len(events))

        return apply

    def _record(self, begun: float, count: int) -> None:
        self.seconds = perf_counter() - begun
        if count and not self._verbose:
            self._durations.record(self.seconds / count)


def _decode_one(decode: Callable[[StoredEvent, StreamId], RecordedEvent], rows: Sequence[StoredEvent], at: int) -> None:
    try:
        decode(rows[at], str.__new__(StreamId, rows[at].stream_id))
    except Exception as error:
        raise HandlerFailed(0, at) from error


def _is_being_cancelled() -> bool:
    """Whether somebody cancels the task, and not the handler's own doing raised this."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _refuse_awaitable(result: object) -> None:
    if iscoroutine(result):
        result.close()
    if result is not None and isawaitable(result):
        raise TypeError("the handler returned something to await, which this transaction cannot do; declare it as plain def")
