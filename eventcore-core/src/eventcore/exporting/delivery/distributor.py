"""The distributor: carries ended spans from the shared ring to every pipeline's queue, and wakes the pipelines' watches."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from math import inf
from typing import Final

from eventcore.exporting.delivery.pipeline import Pipeline
from eventcore.recording.spans import SpanRing

_PERIOD: Final = 0.1
_logger: Final = logging.getLogger(__name__)


class Distributor:
    """A thread that empties the ring ten times a second, as long as there are pipelines.

    Args:
        ring: where spans are appended when they end.
        pipelines: gives the pipelines that there are now.
    """

    def __init__(self, ring: SpanRing, pipelines: Callable[[], Sequence[Pipeline]]) -> None:
        self._ring = ring
        self._pipelines = pipelines
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._ring_dropped = ring.dropped
        self._due_at = inf

    def launch(self) -> None:
        """Begin, unless it has begun."""
        with self._lock:
            if self._thread is None and not self._stopped.is_set():
                self._thread = threading.Thread(target=self._run, name="eventcore-distributor", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Distribute no more; what is in the ring then stays there."""
        self._stopped.set()

    def lateness(self) -> float:
        """How many seconds the thread is behind its time: it does little, so that more than a moment means it cannot run."""
        return -inf if self._stopped.is_set() else time.monotonic() - self._due_at

    def distribute(self) -> None:
        """Carry over every span that has ended until now."""
        with self._lock:
            spans = self._ring.take_all()
            dropped = self._ring.dropped
            lost, self._ring_dropped = dropped - self._ring_dropped, dropped
            if spans or lost:
                for pipeline in self._pipelines():
                    pipeline.offer(spans, lost)

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
                _logger.exception("the distributor goes on after a fault of its own")
