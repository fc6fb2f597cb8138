"""The distributor: a thread that moves ended spans from the shared ring to the queue of each pipeline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, Final

from eventcore.exporting.delivery.span_queue import SpanQueue
from eventcore.ground import own_logger
from eventcore.recording.spans import SpanRing

if TYPE_CHECKING:
    from eventcore.exporting.delivery.pipeline import Pipeline

_PERIOD: Final = 0.1
_logger: Final = own_logger(__name__)


class Distributor:
    """Empties the ring ten times a second, and looks after pipelines whose worker may hang in a hook.

    Args:
        ring: where spans are appended when they end.
        pipelines: returns the present pipelines.
        kept: returns the queues of exporters that are still loading.
    """

    def __init__(
        self, ring: SpanRing, pipelines: Callable[[], Sequence[Pipeline]], kept: Callable[[], Sequence[SpanQueue]]
    ) -> None:
        self._ring = ring
        self._pipelines = pipelines
        self._kept = kept
        # Held while spans are between the ring and the queues: a flush that distributes must not
        # return before they arrived.
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._ring_dropped = ring.dropped
        self._due_at = inf

    def launch(self) -> None:
        """Start the thread, unless it has been started or stopped."""
        with self._lock:
            if self._thread is None and not self._stopped.is_set():
                self._thread = threading.Thread(target=self._run, name="eventcore-distributor", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """End the thread; spans that end later stay in the ring."""
        self._stopped.set()

    def lateness(self) -> float:
        """How many seconds the thread is behind its schedule.

        Each of its rounds is short: when it is late by more than some milliseconds, something else
        holds the GIL.
        """
        return -inf if self._stopped.is_set() else time.monotonic() - self._due_at

    def distribute(self) -> None:
        """Move every span that has ended until now; any thread."""
        with self._lock:
            spans = self._ring.take_all()
            dropped = self._ring.dropped
            lost, self._ring_dropped = dropped - self._ring_dropped, dropped
            if spans or lost:
                pipelines, kept = self._pipelines(), self._kept()
                takers = sum(each.takes_spans and not each.handle.packs_spans for each in pipelines) + len(kept)
                self._ring.is_shared = takers > 1
                for pipeline in pipelines:
                    pipeline.offer(spans, lost)
                for queue in kept:
                    queue.offer(spans, lost)

    def _run(self) -> None:
        while True:
            self._due_at = time.monotonic() + _PERIOD
            if self._stopped.wait(_PERIOD):
                return
            try:
                self.distribute()
                now = time.monotonic()
                for pipeline in self._pipelines():
                    pipeline.tick(now)
            except Exception:
                _logger.exception("internal error in the distributor; it goes on")
