"""Group commit: commands that wait at the same time are decided one after the other and committed in one call.

``handle`` is pure, so a batch *chains*: a command whose streams were changed by its predecessors, committed or still in this
very batch, is brought up to date with their events and decided on that. If another process was faster on a stream, the version
that the whole chain is based on does not hold, so that all of it is refused and reads again.

What many senders ask for at once is taken in two halves: while one is being committed, the senders of the other are answered
and come back. The next batch is sent before the one that has just been committed is answered, so that neither the store nor
the interpreter waits for the other.
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
import time
from collections import deque
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final, Protocol, final

import msgspec

from eventcore.commands.cache import StreamCache
from eventcore.commands.gathering import until_settled
from eventcore.errors import HistoryDiverged, StoreClosed, StoreError, StoreUnavailable
from eventcore.events import RecordedEvent, StreamId
from eventcore.stores.base import CONFLICT, AppendRequest, EventLog, NewEvent, Verdict
from eventcore.stores.failures import as_store_error

_MAX_COMMANDS: Final = 512
_MAX_BYTES: Final = 8 << 20
# Up to so many are not halved: a commit costs more than it would save.
_SMALLEST_HALF: Final = 64
# Between so many decisions or answers the event loop gets its turn: it must not wait for a whole batch.
_AT_ONCE: Final = 32
_CLOSED: Final = StoreClosed("the store was closed before the command was sent")

_UNCONFIRMED: Final = StoreError("the store was closed before the commit was confirmed; the command's events may stand")
_set_position: Final = msgspec.structs.force_setattr


class Outcome(enum.Enum):
    """What became of a candidate."""

    COMMITTED = "committed"
    """Its decision stands; its events, if any, are durable."""
    CONFLICT = "conflict"
    """Another writer changed one of its streams first."""
    RELOAD = "reload"
    """It has to read before it can be decided: it needs further streams, it missed more than is held in memory, or what was at
    hand was behind or, with nothing to write, cannot be shown to be current."""


class Candidate(Protocol):
    """A command that waits for its decision, as the batcher sees it."""

    versions: dict[StreamId, int]
    """What its state has seen of each stream that it reads."""
    read_from_store: bool
    """Whether its state was read from the store; false: what was at hand, so that only an append can show it to be current."""
    one_snapshot: bool
    """Whether its state is one moment of the store; false: a decision without events has to be checked, too."""
    sent: bool
    """Set once its append is on its way: from then on it cannot be withdrawn."""
    future: asyncio.Future[Outcome | StoreError]
    origin: Any

    def advance(self, events: Sequence[RecordedEvent]) -> bool:
        """Bring the state up to date; false when the command then wants to read further streams."""
        ...

    def decide(self, now_ns: int) -> Sequence[NewEvent]:
        """The events of its decision, with the next versions. Failures are kept by the candidate and count as no events."""
        ...


class _Chain:
    """The events of one stream in a batch in the making, with their order in the batch, on committed version ``base``."""

    __slots__ = ("base", "events")

    def __init__(self, base: int) -> None:
        self.base = base
        self.events: list[tuple[int, RecordedEvent]] = []


@final
class Batcher:
    """Decides and commits candidates in order of arrival."""

    def __init__(self, log: EventLog, cache: StreamCache) -> None:
        self._log = log
        self._cache = cache
        self._queue: deque[Candidate] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        # Sent, or about to be.
        self._taken: list[Candidate] = []
        # Judged and not answered yet.
        self._judged: deque[tuple[Candidate, Outcome | StoreError]] = deque()
        # That of the cache from which those who wait have been read.
        self._epoch = cache.epoch

    def start(self) -> None:
        """Begin to serve on the running loop."""
        self._task = asyncio.get_running_loop().create_task(
            self._run(), name="eventcore-batcher", context=contextvars.Context()
        )

    async def close(self, timeout: float) -> None:
        """Take no more candidates, commit those that wait within ``timeout`` seconds, fail the rest with ``StoreClosed``."""
        self._closed = True
        if self._task is None:
            return
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            pass
        finally:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    def submit(self, candidate: Candidate, cache_epoch: int) -> None:
        """Let ``candidate`` wait for its turn; its future tells its outcome. Cancelling that withdraws it until it is sent.

        ``cache_epoch`` is that of the cache when its streams were read.
        """
        if self._closed:
            raise StoreClosed("the store is being closed and takes no more commands")
        if cache_epoch != self._cache.epoch:
            candidate.future.set_result(Outcome.RELOAD)
            return
        self._queue.append(candidate)
        self._idle.clear()
        self._wake.set()

    async def _run(self) -> None:
        flight: asyncio.Task[Sequence[Verdict | StoreError]] | None = None
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await until_settled(self._queue, _MAX_COMMANDS)
                while self._queue or self._judged:
                    requests = await self._form()
                    if not self._judged:
                        # Nobody to be answered meanwhile: without a task of its own, a lone command is done two turns sooner.
                        self._judge(requests, await self._append(requests) if requests else ())
                        continue
                    flight = asyncio.create_task(self._append(requests), name="eventcore-append") if requests else None
                    await self._answer_judged()
                    if flight is not None:
                        self._judge(requests, await flight)
                self._idle.set()
        finally:
            # Whatever ends this task, nobody may wait for ever.
            self._closed = True
            if flight is not None and not flight.done():
                flight.cancel()
                await asyncio.wait([flight])
            for candidate, outcome in self._judged:
                _answer(candidate, outcome)
            for candidate in self._taken:
                _answer(candidate, _UNCONFIRMED)
            while self._queue:
                _answer(self._queue.popleft(), _CLOSED)

    async def _form(self) -> list[AppendRequest]:
        """Decide what waits; ``self._taken`` are the candidates whose requests are returned."""
        requests: list[AppendRequest] = []
        chains: dict[StreamId, _Chain] = {}
        order = size = 0
        now_ns = time.time_ns()
        most = min(_MAX_COMMANDS, max(_SMALLEST_HALF, (len(self._queue) + len(self._judged) + 1) // 2))
        while self._queue and len(requests) < most and size < _MAX_BYTES:
            if len(requests) % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
            if self._epoch != self._cache.epoch:
                self._start_anew()
                return []
            candidate = self._queue.popleft()
            if candidate.future.done():
                continue
            base = self._catch_up(candidate, chains)
            if base is None:
                candidate.future.set_result(Outcome.RELOAD)
                continue
            expected = candidate.versions.copy()
            events = candidate.decide(now_ns)
            if not events and base == expected:
                if not candidate.read_from_store:
                    candidate.future.set_result(Outcome.RELOAD)
                    continue
                if candidate.one_snapshot:
                    candidate.future.set_result(Outcome.COMMITTED)
                    continue
            for new in events:
                stream = new.recorded.stream_id
                order += 1
                size += len(new.data)
                if (chain := chains.get(stream)) is None:
                    chain = chains[stream] = _Chain(base[stream])
                chain.events.append((order, new.recorded))
            candidate.sent = True
            self._taken.append(candidate)
            requests.append(AppendRequest(base, expected, events, candidate.origin))
        return requests

    def _start_anew(self) -> None:
        """Let everybody read again: what they have seen may be gone."""
        self._epoch = self._cache.epoch
        for candidate in (*self._taken, *self._queue):
            _answer(candidate, Outcome.RELOAD)
        self._taken.clear()
        self._queue.clear()

    def _catch_up(self, candidate: Candidate, chains: dict[StreamId, _Chain]) -> dict[StreamId, int] | None:
        """Apply what the candidate has missed. The committed versions it builds on, ``None`` if it has to read again."""
        versions = candidate.versions
        missed: list[RecordedEvent] = []
        streams = 0
        for stream, version in versions.items():
            if self._cache.version(stream) > version:
                tail = self._cache.tail(stream, version)
                if tail is None:
                    return None
                missed += tail
                versions[stream] = tail[-1].version
                streams += 1
        if streams > 1:
            missed.sort(key=_by_position)
        if streams and len(versions) > 1:
            # The streams that did not advance may have been changed by another process meanwhile.
            candidate.one_snapshot = False
        base = versions.copy()
        if chains:
            uncommitted: list[tuple[int, RecordedEvent]] = []
            for stream, version in base.items():
                if (chain := chains.get(stream)) is None:
                    continue
                if version < chain.base:
                    return None
                if version > chain.base:
                    # Another process got in before the chain, which will therefore be refused; a new one starts here.
                    del chains[stream]
                    continue
                uncommitted += chain.events
                versions[stream] = chain.events[-1][1].version
            if uncommitted:
                uncommitted.sort(key=_by_order)
                missed += [event for _, event in uncommitted]
        if missed and not candidate.advance(missed):
            return None
        return base

    def _judge(self, requests: Sequence[AppendRequest], verdicts: Sequence[Verdict | StoreError]) -> None:
        """Learn what became of a batch, before anyone goes on with the same streams."""
        for candidate, request, verdict in zip(self._taken, requests, verdicts, strict=True):
            outcome: Outcome | StoreError = Outcome.COMMITTED
            if isinstance(verdict, StoreError):
                outcome = verdict
            elif verdict == CONFLICT:
                for stream in request.base:
                    self._cache.contest(stream)
                outcome = Outcome.CONFLICT if candidate.read_from_store else Outcome.RELOAD
            elif verdict > 0:
                self._learn(request, verdict)
            self._judged.append((candidate, outcome))
        self._taken = []

    async def _answer_judged(self) -> None:
        number = 0
        while self._judged:
            _answer(*self._judged.popleft())
            number += 1
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _append(self, requests: Sequence[AppendRequest]) -> Sequence[Verdict | StoreError]:
        if self._epoch != self._cache.epoch:
            return [CONFLICT] * len(requests)
        try:
            return await self._log.append(requests)
        except HistoryDiverged:
            self._cache.forget(self._epoch)
            return [CONFLICT] * len(requests)
        except StoreUnavailable as error:
            return [error] * len(requests)
        except Exception as error:  # noqa: BLE001  # the one whose fault it is gets it
            # Something in the batch is at fault: halve it until that one stands alone.
            if len(requests) == 1:
                return [as_store_error(error)]
            middle = len(requests) // 2
            return [*await self._append(requests[:middle]), *await self._append(requests[middle:])]

    def _learn(self, request: AppendRequest, first: int) -> None:
        by_stream: dict[StreamId, list[RecordedEvent]] = {}
        for position, new in enumerate(request.events, first):
            event = new.recorded
            # Not shared with anyone but the candidates of this batch, who have seen it without a position.
            _set_position(event, "position", position)
            by_stream.setdefault(event.stream_id, []).append(event)
        if self._epoch != self._cache.epoch:
            return
        for stream, events in by_stream.items():
            self._cache.extend(stream, events, events[0].version - 1)


def _answer(candidate: Candidate, outcome: Outcome | StoreError) -> None:
    if not candidate.future.done():
        candidate.future.set_result(outcome)


def _by_position(event: RecordedEvent) -> int:
    return event.position


_by_order: Final = itemgetter(0)
