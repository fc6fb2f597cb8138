"""What all cells share, and the buffer of values that wait to be recorded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from time import time_ns
from typing import TYPE_CHECKING, Any, ClassVar, Final

from eventcore.ground import own_logger
from eventcore.recording.spans import Span
from eventcore.recording.values import Exemplar, Labels

if TYPE_CHECKING:
    from eventcore.recording.cells.numbers import CounterCell

_logger: Final = own_logger("eventcore.recording.cells")


class Buffer:
    """Values that wait to be recorded into one cell: appending one takes a fifth of the time of recording it.

    For a hot path with many values. Its owner must call ``fold`` now and then, so that the buffer stays small; each collection
    folds it, too.

    Attributes:
        append: add one finite number; safe from any thread.
        values: the numbers that wait.
        counter: a cell that also counts the numbers, if there is one.
    """

    __slots__ = ("_folding", "_record_many", "append", "counter", "values")

    def __init__(self, record_many: Callable[[Sequence[float]], None]) -> None:
        self._record_many = record_many
        self.counter: CounterCell | None = None
        self.values: list[float] = []
        self.append: Final[Callable[[float], None]] = self.values.append
        self._folding = threading.Lock()

    def fold(self) -> None:
        """Record the values that wait now. Does nothing while another thread folds this buffer."""
        # The event loop and a collecting thread both fold. Neither may wait here: the other thread may be inside a signal
        # handler that waits for a flush. Values that this call leaves behind are in the next collection.
        if not self._folding.acquire(blocking=False):
            return
        try:
            # Other threads go on appending, which only adds values behind those that are taken here.
            if waiting := self.values[:]:
                del self.values[: len(waiting)]
                self._record_many(waiting)
                if self.counter is not None:
                    self.counter.add_ones(len(waiting))
        except Exception:
            # Raised here, it would fail a command or a collection that has nothing to do with the value.
            _logger.exception("a batch of measurements is dropped")
        finally:
            self._folding.release()

    def clear(self) -> None:
        """Forget the values that wait. Only in a forked child: a thread of the parent may have held the lock."""
        self._folding = threading.Lock()
        self.values.clear()


class Cell:
    """What all cells share.

    Attributes:
        labels: the label names and values of the series.
        is_overflow: whether it is the one series for all label values beyond the cap.
        measurements: how many were recorded; only an overflow cell counts them.
        start_time_ns: when the series began, in nanoseconds since the Unix epoch.
    """

    __slots__ = ("__weakref__", "_buffer", "_exemplars", "_lock", "labels", "measurements", "start_time_ns")
    _locked: ClassVar = False
    is_overflow: ClassVar = False

    def __init__(self, labels: Labels = ()) -> None:
        self.labels = labels
        self._buffer: Buffer | None = None
        self.reset()

    def reset(self) -> None:
        """Start again without a value. A forked child does this; it has one thread then, so no lock is needed."""
        self.measurements = 0
        self.start_time_ns = time_ns()
        # By bucket. Each value is replaced as a whole, so that reading needs no lock.
        self._exemplars: dict[int, Exemplar] | None = None
        if self._locked:
            # Re-entrant, because a signal handler may record while its own thread holds the lock.
            self._lock = threading.RLock()
        if self._buffer is not None:
            self._buffer.clear()

    def record_many(self, values: Sequence[int | float]) -> None:
        """Record every one of ``values``, or none of them."""
        raise NotImplementedError  # pragma: no cover  # each kind of cell that is buffered has its own

    def offer(self, value: int | float, span: Span) -> None:
        """Keep a measurement that is recorded, too, as the series' exemplar: ``span``, which is sampled, leads to its trace.

        The newest one counts; a histogram keeps the newest of each bucket.
        """
        exemplar = Exemplar(value, time_ns(), span.trace_id, span.span_id)
        if (exemplars := self._exemplars) is None:
            self._exemplars = {self._bucket(value): exemplar}
        else:
            exemplars[self._bucket(value)] = exemplar

    def exemplars(self) -> tuple[Exemplar, ...]:
        """Those that were offered, in the order of their buckets."""
        offered = self._exemplars
        return () if offered is None else tuple([exemplar for _, exemplar in sorted(offered.copy().items())])

    def _bucket(self, value: int | float) -> int:
        return 0

    def buffer(self) -> Buffer:
        """The buffer of this cell: one, however often it is asked for."""
        if self._buffer is None:
            self._buffer = Buffer(self.record_many)
        return self._buffer

    def fold(self) -> None:
        """Record what waits in the buffer, if there is one."""
        if self._buffer is not None:
            self._buffer.fold()

    def current(self) -> Any:
        """The value, without what waits in the buffer. A collection folds all cells first, so that its values agree."""
        raise NotImplementedError  # pragma: no cover  # each kind of cell has its own

    def read(self) -> Any:
        """The value, with what waits in the buffer."""
        self.fold()
        return self.current()
