"""What is recorded of commands: series that are bound once for each command type.

A command records a dozen values. They go to buffers and are recorded by the hundred, and at each collection: that takes a third
of the time of recording each of them alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypeAlias, final

from eventcore.catalogue.metrics import CommandMetrics, CommandOutcome, Resolution, RetryReason, SnapshotResult
from eventcore.errors import CommandTimeout
from eventcore.recording import Buffer, CounterCell, HistogramCell, Span, UpDownCounterCell
from eventcore.telemetry import Telemetry

_FOLD_AT: Final = 256

_Append: TypeAlias = Callable[[float], None]
# Of one outcome: append to durations, which also counts the command; append to attempts; the durations that wait; offer an
# exemplar of the duration.
_Ended: TypeAlias = tuple[_Append, _Append, list[float], Callable[[float, Span], None]]


@final
class CommandInstruments(CommandMetrics):
    """The ``commands.*`` metrics of one store.

    Args:
        telemetry: where they are recorded.
        store: the name of the store.
        gave_up: called when a command has ended by its own timeout.
    """

    def __init__(self, telemetry: Telemetry, store: str, gave_up: Callable[[], None] = lambda: None) -> None:
        super().__init__(telemetry)
        self.store = store
        self.gave_up = gave_up

    def count_snapshot_read(self, result: SnapshotResult) -> None:
        """Count a look-up of a stored state."""
        self.snapshots_reads.labels(self.store, result).add(1)

    def count_snapshot_write(self, result: SnapshotResult, count: int) -> None:
        """Count states that were to be stored."""
        self.snapshots_writes.labels(self.store, result).add(count)

    def bind(self, command_type: str) -> CommandSeries:
        """The series of one command type."""
        return CommandSeries(self, command_type)


@final
class CommandSeries:
    """The ``commands.*`` series of one command type, used by one event loop. Most attributes append to the buffer of a series.

    Attributes:
        active: append 1 when a command begins; ``ended`` appends -1.
        load, decide, append: seconds of each phase of an attempt.
        streams_read, streams_written, loaded, loaded_from_states, emitted: numbers of streams and events.
    """

    def __init__(self, instruments: CommandInstruments, command_type: str) -> None:
        store = instruments.store
        self._instruments: Final = instruments
        self._labels: Final = (store, command_type)
        self._buffers: Final[list[Buffer]] = []
        self._ended: Final[dict[CommandOutcome, _Ended]] = {}
        self.active: Final = self._buffer(instruments.active.labels(store, command_type)).append
        phases = instruments.phase_duration
        self.load: Final = self._buffer(phases.labels(store, "load")).append
        self.decide: Final = self._buffer(phases.labels(store, "decide")).append
        self.append: Final = self._buffer(phases.labels(store, "append")).append
        self.streams_read: Final = self._buffer(instruments.streams.labels(store, "read")).append
        self.streams_written: Final = self._buffer(instruments.streams.labels(store, "written")).append
        self.loaded: Final = self._buffer(instruments.events_loaded.labels(store, command_type, "full")).append
        self.loaded_from_states: Final = self._buffer(instruments.events_loaded.labels(store, command_type, "snapshot")).append
        self.emitted: Final = self._buffer(instruments.events_emitted.labels(store, command_type)).append

    def ended(self, outcome: CommandOutcome, seconds: float, attempts: int, span: Span | None = None) -> None:
        """Record a command that ended after ``seconds``; its ``span``, if it is sampled, becomes the duration's exemplar."""
        duration, attempted, waiting, offer = self._ended.get(outcome) or self._bind(outcome)
        duration(seconds)
        if attempts:
            attempted(attempts)
        self.active(-1)
        if span is not None:
            offer(seconds, span)
        if len(waiting) >= _FOLD_AT:
            for buffer in self._buffers:
                buffer.fold()

    # Rare values are bound when they are recorded.

    def phase(self, phase: Literal["discover", "backoff"], seconds: float) -> None:
        """Record the time of a phase that most commands do not have."""
        self._instruments.phase_duration.labels(self._instruments.store, phase).record(seconds)

    def conflict(self, resolution: Resolution, count: int = 1) -> None:
        """Count conflicts by how they were resolved."""
        self._instruments.conflicts.labels(*self._labels, resolution).add(count)

    def retry(self, reason: RetryReason) -> None:
        """Count an attempt after the first."""
        self._instruments.retries.labels(*self._labels, reason).add(1)

    def failed(self, error: BaseException) -> None:
        """Count a command of the outcome ``error``. Its duration is recorded by ``ended``, like that of any other."""
        self._instruments.total.labels(*self._labels, "error", type(error).__name__).add(1)
        if isinstance(error, CommandTimeout):
            self._instruments.gave_up()

    def _bind(self, outcome: CommandOutcome) -> _Ended:
        labels = (*self._labels, outcome)
        attempts = self._buffer(self._instruments.attempts.labels(*labels))
        cell = self._instruments.duration.labels(*labels)
        duration = self._buffer(cell)
        append = duration.append
        if outcome != "error":
            total = self._instruments.total.labels(*labels, "")
            if cell.is_overflow:
                # The buffer has the durations of all command types beyond the cap. The total has a higher cap, so this type may
                # still be counted by itself.
                append = _and_count(append, total)
            else:
                total.count(duration)
        bound = self._ended[outcome] = (append, attempts.append, duration.values, cell.offer)
        return bound

    def _buffer(self, cell: UpDownCounterCell | HistogramCell) -> Buffer:
        buffer = cell.buffer()
        self._buffers.append(buffer)
        return buffer


def _and_count(append: _Append, total: CounterCell) -> _Append:
    def ended(seconds: float) -> None:
        append(seconds)
        total.add(1)

    return ended
