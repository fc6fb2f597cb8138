"""Group commit: commands that wait at the same time are decided one after the other and committed in one call.

**Chaining.** ``handle`` is pure, so the batcher may call it again. Before it decides a command, it applies the events that the
command has missed: those that other commands of this process committed, and those that earlier commands of the same batch are
about to commit. So each of many commands on one stream needs only one attempt. If another process appended to the stream first,
the store refuses the whole chain, and its commands are retried.

**Overlap.** The next batch is sent before the commands of the last one are answered. While the store commits, the answered
commands return to their callers, which submit again, so neither the store nor the interpreter waits for the other. For this to
work, a batch takes only half of many waiting commands: while one half commits, the other half is answered and comes back.

Everything here runs on the store's event loop. The batcher's task decides and answers; ``submit`` runs in the callers' tasks.
Between two ``await`` no other task runs, so no lock is needed.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from operator import attrgetter, itemgetter
from typing import Final, Literal, TypeAlias, final

import msgspec

from eventcore.commands.attempt import Answer, Attempt, Outcome
from eventcore.commands.streams.cache import StreamCache
from eventcore.commands.streams.gathering import AT_ONCE, answer, answer_all, until_settled
from eventcore.commands.streams.loading import BEGIN_ANEW
from eventcore.commands.streams.speculation import Refusal, RefusedStreams
from eventcore.errors import StoreClosed, StoreError, StoreUnavailable
from eventcore.events import RecordedEvent, StreamId
from eventcore.ground import OwnedTask, cancel_and_wait, spawn
from eventcore.stores.base import EventLog, append_hints
from eventcore.stores.failures import as_store_error, own_copy
from eventcore.stores.values import CONFLICT, KNOWN_KEY, AppendRequest, NewEvent, Verdict, Verdicts

_MAX_COMMANDS: Final = 512
_MAX_BYTES: Final = 8 << 20
# Events that a command has missed: applying so many takes about as long as deciding a command.
_LIKE_A_COMMAND: Final = 16
_CLOSED: Final = StoreClosed("the store was closed before the command was sent")
_UNCONFIRMED: Final = StoreError("the store was closed before the commit was confirmed; the command's events may be stored")
_set_position: Final = msgspec.structs.force_setattr
_stream_of: Final = attrgetter("recorded.stream_id")
_by_order: Final = itemgetter(0)
_by_position: Final = attrgetter("position")


_Chain: TypeAlias = list[tuple[int, RecordedEvent]]
"""The events of one stream in the batch that is being formed, each with its order in the batch."""

_Judgement: TypeAlias = Verdict | Refusal | StoreError | Literal[Outcome.RELOAD]
"""What has become of one append request: the store's verdict, or what it has found when it refused the request; the reason why
it has no verdict; or ``RELOAD`` if it was not stored because its command must be loaded again. That is no verdict, so that no
verdict of the store can be taken for it."""


@final
class Batcher:
    """Decides and commits attempts in order of arrival."""

    def __init__(self, log: EventLog, cache: StreamCache, refused: RefusedStreams) -> None:
        self._log = log
        self._cache = cache
        self._refused = refused
        # Up to this number, all waiting commands go into one batch: halving it would cost one more commit than it saves.
        self._smallest_half = append_hints(log).smallest_half
        self._queue: deque[Attempt] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: OwnedTask[None] | None = None
        self._closed = False
        # The batch that is being formed or appended.
        self._batch: list[Attempt] = []
        # Answers of the last batch that its commands have not received yet.
        self._answers: deque[tuple[asyncio.Future[Answer], Answer]] = deque()
        # The epoch of the cache in which all waiting attempts were read.
        self._epoch = cache.epoch

    def start(self) -> None:
        """Start the batcher's task on the running loop."""
        self._task = spawn(self._run(), "eventcore-batcher")

    async def close(self, timeout: float) -> None:
        """Accept no more attempts, commit waiting ones within ``timeout`` seconds, fail the others with ``StoreClosed``."""
        self._closed = True
        if self._task is None:
            return
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._idle.wait()
        finally:
            await cancel_and_wait(self._task)
            self._task = None

    def submit(self, attempt: Attempt) -> None:
        """Queue an attempt; its future receives the answer. Cancelling the future withdraws the attempt until it is sent.

        Raises:
            StoreClosed: the batcher is closed.
        """
        if self._closed:
            raise StoreClosed("the store is being closed and takes no more commands")
        if attempt.boundary.cache_epoch != self._cache.epoch:
            attempt.future.set_result(Outcome.RELOAD)
            return
        self._queue.append(attempt)
        self._idle.clear()
        self._wake.set()

    async def _run(self) -> None:
        append: OwnedTask[Sequence[_Judgement]] | None = None
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                # An iteration has passed since the first command woke this task: one that is still alone need not wait longer.
                if len(self._queue) > 1:
                    await until_settled(self._queue, _MAX_COMMANDS)
                while self._queue or self._answers:
                    if self._queue and self._answers and len(self._queue) + len(self._answers) <= self._smallest_half:
                        # The callers of few commands go round in two groups for ever if one group is appended while the other
                        # one is answered: that is two commits for each command instead of one.
                        await answer_all(self._answers)
                        await until_settled(self._queue, _MAX_COMMANDS)
                    requests = await self._form()
                    if not self._answers:
                        # There is nothing to answer during the append. Awaited here and not in a new task, a lone command is
                        # answered two iterations of the event loop sooner.
                        self._judge(requests, await self._append(requests) if requests else ())
                        continue
                    append = spawn(self._append(requests), "eventcore-append") if requests else None
                    await answer_all(self._answers)
                    if append is not None:
                        self._judge(requests, await append)
                self._idle.set()
        finally:
            # However this task ends, answer every waiting command. The append ends first: a caller that then reads its streams
            # sees whether its events were committed. For a batch that was still being formed, "may be stored" is too cautious.
            self._closed = True
            if append is not None and not append.done():
                await cancel_and_wait(append)
            for future, result in self._answers:
                answer(future, result)
            for attempt in self._batch:
                answer(attempt.future, own_copy(_UNCONFIRMED))
            for attempt in self._queue:
                answer(attempt.future, own_copy(_CLOSED))
            self._queue.clear()

    async def _form(self) -> list[AppendRequest]:
        """Decide waiting commands. Returns the append requests of ``self._batch``, in the same order."""
        requests: list[AppendRequest] = []
        chains: dict[StreamId, _Chain] = {}
        order = size = work = 0
        now_ns = time.time_ns()
        # Commands that are about to be answered count as waiting: most of their callers submit again at once.
        limit = min(_MAX_COMMANDS, max(self._smallest_half, (len(self._queue) + len(self._answers) + 1) // 2))
        while self._queue and len(requests) < limit and size < _MAX_BYTES:
            if work >= AT_ONCE - 1:
                await asyncio.sleep(0)
                work = 0
            # From here to the end of the iteration nothing awaits, so the cache does not change and no caller can withdraw the
            # attempt between its check and its entry into the batch.
            if self._epoch != self._cache.epoch:
                self._reload_all()
                return []
            attempt = self._queue.popleft()
            if attempt.future.done():
                continue
            base = self._bring_up_to_date(attempt, chains)
            work += 1 + len(attempt.later_events) // _LIKE_A_COMMAND
            if base is None:
                attempt.future.set_result(Outcome.RELOAD)
                continue
            boundary = attempt.boundary
            # Nothing changes them any more: the attempt is decided once.
            expected = boundary.versions
            events = attempt.decide(now_ns)
            # A command that fails keeps no idempotency key.
            key = attempt.key if attempt.failure is None else None
            # A decision without events needs no append if its state is one moment of the store. If it builds on events of this
            # batch, it must wait for their verdict. An idempotency key must be stored.
            if not events and key is None and (base is expected or base == expected):
                if not boundary.read_from_store:
                    attempt.future.set_result(Outcome.RELOAD)
                    continue
                if boundary.one_snapshot:
                    attempt.future.set_result(Outcome.COMMITTED)
                    continue
            for new in events:
                event = new.recorded
                order += 1
                size += len(new.data)
                chain = chains.get(event.stream_id) or chains.setdefault(event.stream_id, [])
                chain.append((order, event))
            attempt.sent = True
            self._batch.append(attempt)
            requests.append(AppendRequest(base, expected, events, attempt.context.span, key))
        self._cache.appending = chains.keys()
        return requests

    def _reload_all(self) -> None:
        """Let all commands read again: the store has gone back in time, and may have lost events that they have seen."""
        self._epoch = self._cache.epoch
        for attempt in (*self._batch, *self._queue):
            answer(attempt.future, Outcome.RELOAD)
        self._batch.clear()
        self._queue.clear()

    def _bring_up_to_date(self, attempt: Attempt, chains: dict[StreamId, _Chain]) -> dict[StreamId, int] | None:
        """Apply the events that the attempt has missed: first committed ones, then those of the batch.

        Returns the committed versions that the attempt builds on, or ``None`` if it must be loaded again.
        """
        versions = attempt.boundary.versions
        missed: list[RecordedEvent] = []
        advanced = 0
        version_of = self._cache.version
        for stream, version in versions.items():
            if version_of(stream) > version:
                tail = self._cache.tail(stream, version)
                if tail is None:
                    return None
                missed += tail
                versions[stream] = tail[-1].version
                advanced += 1
        if advanced > 1:
            missed.sort(key=_by_position)
        if advanced and len(versions) > 1:
            # Another process may have changed the streams that did not advance.
            attempt.boundary.one_snapshot = False
        if not missed and (not chains or chains.keys().isdisjoint(versions)):
            # Nearly all commands: they have missed nothing.
            return versions
        base = versions.copy()
        uncommitted: _Chain = []
        for stream, version in base.items():
            if (chain := chains.get(stream)) is None:
                continue
            chain_base = chain[0][1].version - 1
            if version < chain_base:
                return None
            if version > chain_base:
                # The attempt has seen an event of another process that the chain does not know. The store will refuse the
                # chain; this attempt starts a new one.
                del chains[stream]
                continue
            uncommitted += chain
            versions[stream] = chain[-1][1].version
        if uncommitted:
            uncommitted.sort(key=_by_order)
            missed += [event for _, event in uncommitted]
        if missed and not attempt.catch_up(missed):
            return None
        return base

    def _judge(self, requests: Sequence[AppendRequest], verdicts: Sequence[_Judgement]) -> None:
        """Turn the verdicts on a batch into answers, and its events into cached ones.

        Runs before the next batch is formed, so that the next decisions on the same streams see these events. It answers no
        command: answering yields to the event loop, and the next batch is to be sent first.
        """
        # The streams of requests that were refused since what they knew was not confirmed.
        guessed: set[StreamId] = set()
        for attempt, request, verdict in zip(self._batch, requests, verdicts, strict=True):
            result: Answer = Outcome.COMMITTED
            if type(verdict) is int and verdict > 0:
                self._learn(request, verdict)
            elif isinstance(verdict, StoreError):
                result = own_copy(verdict)
            elif verdict is Outcome.RELOAD:
                result = Outcome.RELOAD
            elif verdict == CONFLICT or isinstance(verdict, Refusal):
                if isinstance(verdict, Refusal):
                    attempt.refusal = verdict
                else:
                    for stream in request.base:
                        self._cache.contest(stream)
                # A state that was not confirmed, and was wrong, is no conflict: no attempt is counted. Nor is it one for those
                # that have built on its events.
                if not attempt.boundary.read_from_store or _builds_on(request, guessed):
                    result = Outcome.RELOAD
                    guessed.update([new.recorded.stream_id for new in request.events])
                else:
                    result = Outcome.CONFLICT
                # In a trace with two appends, it says what became of the first.
                attempt.context.span.add_event("append refused", {"reason": "version", "from_cache": result is Outcome.RELOAD})
            elif verdict == KNOWN_KEY:
                result = Outcome.REPEATED
            self._answers.append((attempt.future, result))
        self._batch = []
        self._cache.appending = ()

    async def _append(self, requests: Sequence[AppendRequest]) -> Sequence[_Judgement]:
        if self._epoch != self._cache.epoch:
            return [Outcome.RELOAD for _ in requests]
        try:
            verdicts = await self._log.append(requests)
            if isinstance(verdicts, Verdicts) and verdicts.refused is not None and self._epoch == self._cache.epoch:
                refusal = self._refused.learn(verdicts.refused)
                return [refusal if verdict == CONFLICT else verdict for verdict in verdicts]
            return verdicts
        except BEGIN_ANEW:
            # Nothing was stored. The commands are decided again on what the store holds now; that is no conflict.
            self._cache.forget(self._epoch)
            return [Outcome.RELOAD for _ in requests]
        except StoreUnavailable as error:
            return [error] * len(requests)
        except Exception as error:  # noqa: BLE001  # becomes the answer of the request that causes it
            # One request fails the whole batch. Halve the batch until that request is alone; the others are committed.
            if len(requests) == 1:
                return [as_store_error(error)]
            middle = len(requests) // 2
            return [*await self._append(requests[:middle]), *await self._append(requests[middle:])]

    def _learn(self, request: AppendRequest, first: int) -> None:
        """Give committed events their positions, from ``first``, and add them to the cache."""
        # The events are frozen and may be changed here only: until now, only commands of this batch have seen them, and their
        # `apply` must not keep their position, which was 0. Events of an earlier epoch must not come back into the cache.
        cache, news = self._cache, request.events
        for position, new in enumerate(news, first):
            _set_position(new.recorded, "position", position)
        if self._epoch != cache.epoch:
            return
        if len(news) == 1 or (len(request.base) > 1 and len(news) == len(set(map(_stream_of, news)))):
            # Most commands write one event to a stream.
            size_of, metadata = cache.sizes.of, None
            for new in news:
                event = new.recorded
                cache.append(event, size_of(event, len(new.data), metadata))
                metadata = event.metadata
            return
        by_stream: dict[StreamId, list[NewEvent]] = {}
        if len(request.base) == 1:
            by_stream[news[0].recorded.stream_id] = list(news)
        else:
            for new in news:
                by_stream.setdefault(new.recorded.stream_id, []).append(new)
        for stream, of_stream in by_stream.items():
            events = [new.recorded for new in of_stream]
            sizes = cache.sizes.of_command(events, [len(new.data) for new in of_stream])
            cache.extend(stream, events, sizes, events[0].version - 1)


def _builds_on(request: AppendRequest, streams: set[StreamId]) -> bool:
    """Whether a request has seen uncommitted events of one of the streams."""
    base = request.base
    return any(stream in streams and version != base[stream] for stream, version in request.expected.items())
