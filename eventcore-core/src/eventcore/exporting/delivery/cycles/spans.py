"""One cycle of spans: a batch in small chunks, then ``flush``. Spans that the exporter cannot convert are found and refused."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, final

from eventcore.exporting.context import Rejected
from eventcore.exporting.delivery.clock import CycleClock
from eventcore.exporting.delivery.cycles.calls import BadChunk, HookCalls, is_data_error
from eventcore.exporting.delivery.pipeline import Pipeline
from eventcore.ground import describe_error
from eventcore.recording.spans import Span
from eventcore.recording.values import SpanData

# Spans that are freed at once, which takes about half a millisecond, and the seconds of a pause between two such slices.
_RELEASED: Final = 256
_RELEASE_PAUSE: Final = 0.001
# So many spans of a batch that cannot be converted are tried one by one before the others: where
# none of them can be, the spans are probably not to blame.
_SAMPLE: Final = 8


@final
class SpanCycle:
    """Exports the batch that is not settled, else a new one. Used by the worker thread alone.

    Args:
        pipeline: its spans.
        calls: calls its hooks.
        clock: says how many spans the processor budget allows.
    """

    def __init__(self, pipeline: Pipeline, calls: HookCalls, clock: CycleClock) -> None:
        self._queue = pipeline.queue
        self._batch_limit = pipeline.settings.span_batch
        self._calls = calls
        self._clock = clock
        self._size = calls.sizes["export_spans"]
        self._packs_spans = pipeline.handle.packs_spans
        # Without a flush hook, an export hook that returned has delivered its spans: each chunk is
        # committed by itself.
        self._commits_chunks = not calls.delivers_at_flush

    def run(self, deadline: float, within_budget: bool) -> tuple[int, list[Rejected]]:
        """Export one batch and commit it in the queue. Returns the number of its spans, and the hooks' answers.

        Raises:
            Exception: the hooks have not delivered; what they were handed is still marked as such
                in the queue.
        """
        limit = self._batch_limit
        if within_budget:
            affordable = self._clock.affordable_spans(time.monotonic(), self._size.cost)
            self._queue.token.full_because = "budget" if affordable < limit else "queue_full"
            limit = max(1, min(limit, affordable))
        batch = self._queue.take(limit)
        count = len(batch)
        is_retry = self._queue.attempts() > 1
        try:
            answers = self._export(batch, deadline)
        except BadChunk as bad:
            # The hook has raised: nothing that the exporter still holds counts as handed.
            self._queue.fail(outcome_unknown=False)
            tried, refused = self._refuse_bad(deadline, bad.error, is_retry=is_retry)
        else:
            _release(batch)
            return count, answers
        if not self._queue.in_flight:
            return tried, [refused]
        try:
            # Not the same batch: where each span was delivered by itself, it is smaller now.
            return tried, [refused, *self._export(self._queue.take(limit), deadline)]
        except BadChunk as bad:
            raise bad.error from None

    def _export(self, batch: Sequence[Span], deadline: float) -> list[Rejected]:
        begun = time.monotonic()
        self._calls.begin("spans", self._queue.attempts(), deadline)
        answers: list[Rejected] = []
        begin = 0
        while chunk := batch[begin : begin + (self._batch_limit if self._packs_spans else self._size.items)]:
            begin += len(chunk)
            answers.append(self._export_chunk(chunk, len(chunk) if self._commits_chunks else begin, deadline))
            if self._commits_chunks:
                self._queue.commit(len(chunk), answers[-1].count)
            if begin < len(batch):
                self._size.pause(begun, deadline)
        if not self._commits_chunks:
            answers.append(self._calls.flush("spans", deadline))
            self._queue.commit(len(batch), sum(answer.count for answer in answers))
        return answers

    def _export_chunk(self, chunk: Sequence[Span], handed: int, deadline: float) -> Rejected:
        cpu = time.thread_time()
        try:
            values = self._values(chunk)
        except Exception as error:  # a value that an application gave may raise when it is read
            raise BadChunk(error) from error
        self._queue.hand(handed)
        return self._give(values, time.thread_time() - cpu, deadline)

    def _values(self, spans: Sequence[Span]) -> Sequence[Span] | Sequence[SpanData]:
        """What a hook gets. Where it runs in another process, that process freezes the spans."""
        return spans if self._packs_spans else [span.data() for span in spans]

    def _give(self, values: Sequence[Span] | Sequence[SpanData], preparation: float, deadline: float) -> Rejected:
        try:
            return self._calls.export("export_spans", values, len(values), deadline, preparation)
        except Exception as error:
            if self._calls.blames_data(error):
                raise BadChunk(error) from error
            raise

    def _refuse_bad(self, deadline: float, error: Exception, *, is_retry: bool) -> tuple[int, Rejected]:
        """Find the spans of the batch that cannot be converted, and count them as rejected.

        Returns how many spans were looked at, and an answer that names the reason.

        Raises:
            Exception: what the hook raised, when the spans are not to blame.
        """
        # With newer spans: where one of them can be converted, the hook works, and the others are bad.
        batch = self._queue.top_up(self._batch_limit)
        self._calls.begin("spans", self._queue.attempts(), deadline)
        step = max(len(batch) // _SAMPLE, 1)
        order = [*batch[::step], *(span for index, span in enumerate(batch) if index % step)]
        sample = len(batch[::step])
        refused: list[Span] = []
        works, begun = 0, time.monotonic()
        for tried, span in enumerate(order):
            if tried >= sample and not works:
                break
            try:
                self._deliver_one(span, deadline)
                works += 1
            except BadChunk as bad:
                refused.append(span)
                error = bad.error
            if (tried + 1) % self._size.items == 0:
                self._size.pause(begun, deadline)
        if refused and works == 0:
            # Where none can be converted, the hook may be broken for a while. It is tried once more
            # before the spans are blamed.
            if not (is_retry and self._calls.converts_only and is_data_error(error)):
                raise error
            refused = batch
        if not refused:
            raise error
        self._queue.settle(refused, exported=False)
        return len(batch), Rejected(len(refused), f"{len(refused)} spans cannot be converted: {describe_error(error)}")

    def _deliver_one(self, span: Span, deadline: float) -> None:
        """Try to convert a span. Where ``begin`` does not make the exporter drop it again, deliver it by itself."""
        try:
            values = self._values([span])
        except Exception as error:
            raise BadChunk(error) from error
        answers = [self._give(values, 0.0, deadline)]
        if not self._calls.converts_only:
            answers.append(self._calls.flush("spans", deadline))
            self._queue.settle([span], exported=not any(answer.count for answer in answers))


def _release(batch: list[Span]) -> None:
    """Let go of spans that were delivered, some at a time.

    The last one to hold a span frees it, and what it holds. Freeing a large batch at once would hold the GIL for milliseconds.
    """
    while len(batch) > _RELEASED:
        del batch[-_RELEASED:]
        time.sleep(_RELEASE_PAUSE)
