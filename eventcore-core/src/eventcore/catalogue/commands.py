"""What is recorded of commands: series bound once for each command type.

A command has ten values to record. They are put aside and recorded by the hundred, and at each collection: that takes a third
of the time of recording each on its own.
"""

from __future__ import annotations

import threading
from typing import Final, Literal, TypeAlias, final

from eventcore.catalogue.declaring import Declaring
from eventcore.recording import CounterCell, RecordBuffer
from eventcore.telemetry import Telemetry

_FOLD_AT: Final = 256

CommandOutcome: TypeAlias = Literal["committed", "no_events", "rejected", "conflict", "cancelled", "error"]


@final
class CommandInstruments:
    """The ``commands.*`` rows for one store."""

    def __init__(self, telemetry: Telemetry, store: str) -> None:
        declared = Declaring(telemetry)
        self.store = store
        self.total = declared.counter("commands.total")
        self.duration = declared.histogram("commands.duration")
        self.active = declared.up_down_counter("commands.active")
        self.phase_duration = declared.histogram("commands.phase.duration")
        self.attempts = declared.histogram("commands.attempts")
        self.streams = declared.histogram("commands.streams")
        self.loaded = declared.histogram("commands.events.loaded")
        self.emitted = declared.histogram("commands.events.emitted")
        self.conflicts = declared.counter("commands.conflicts")
        self.retries = declared.counter("commands.retries")
        self._bound: list[CommandSeries] = []
        self._forget = telemetry.on_collect(self._fold)

    def bind(self, command_type: str) -> CommandSeries:
        """The series of one command type."""
        series = CommandSeries(self, command_type)
        self._bound.append(series)
        return series

    def close(self) -> None:
        """Record what is put aside: no more commands come."""
        self._fold()
        self._forget()

    def _fold(self) -> None:
        for series in self._bound.copy():
            series.fold()


@final
class _Ended:
    """What is recorded of commands of one type that ended in one way."""

    __slots__ = ("attempts", "duration", "total")

    def __init__(self, instruments: CommandInstruments, labels: tuple[str, str, str]) -> None:
        self.total: CounterCell = instruments.total.labels(*labels)
        self.duration = RecordBuffer(instruments.duration.labels(*labels))
        self.attempts = RecordBuffer(instruments.attempts.labels(*labels))


@final
class CommandSeries:
    """The ``commands.*`` series of one command type, so that recording looks nothing up but the outcome.

    Attributes:
        started: commands that have begun; whoever executes them adds one.
    """

    def __init__(self, instruments: CommandInstruments, command_type: str) -> None:
        store = instruments.store
        self._instruments = instruments
        self._labels: Final = (store, command_type)
        self._ended: dict[CommandOutcome, _Ended] = {}
        self._active = instruments.active.labels(store, command_type)
        self._shown_active = 0
        self.started = 0
        self._finished = 0
        # Taken by whoever folds: the executor's loop when there is enough, a collecting thread.
        self._folding = threading.Lock()
        phases = [RecordBuffer(instruments.phase_duration.labels(store, phase)) for phase in ("load", "decide", "append")]
        counts = [
            RecordBuffer(instruments.streams.labels(store, "read")),
            RecordBuffer(instruments.streams.labels(store, "written")),
            RecordBuffer(instruments.loaded.labels(store, command_type, "full")),
            RecordBuffer(instruments.emitted.labels(store, command_type)),
        ]
        self._buffers: Final = (*phases, *counts)
        self.load, self.decide, self.append = (buffer.record for buffer in phases)
        self.streams_read, self.streams_written, self.loaded, self.emitted = (buffer.record for buffer in counts)

    def ended(self, outcome: CommandOutcome, seconds: float, attempts: int) -> None:
        """Count a command that ended after ``seconds``."""
        ended = self._ended.get(outcome)
        if ended is None:
            ended = self._ended[outcome] = _Ended(self._instruments, (*self._labels, outcome))
        ended.duration.record(seconds)
        if attempts:
            ended.attempts.record(attempts)
        self._finished += 1
        if len(ended.duration.values) >= _FOLD_AT:
            self.fold()

    def fold(self) -> None:
        """Record what is put aside; nothing when somebody else is at it."""
        if not self._folding.acquire(blocking=False):
            return
        try:
            for ended in tuple(self._ended.values()):
                if count := ended.duration.fold():
                    ended.total.add(count)
                ended.attempts.fold()
            for buffer in self._buffers:
                buffer.fold()
            active = self.started - self._finished
            self._active.add(active - self._shown_active)
            self._shown_active = active
        finally:
            self._folding.release()

    # What happens to few commands is bound when it happens.

    def phase(self, phase: Literal["discover", "backoff"], seconds: float) -> None:
        """Record the time of a phase that most commands do not have."""
        self._instruments.phase_duration.labels(self._instruments.store, phase).record(seconds)

    def conflict(self, resolution: Literal["chained", "absorbed", "escaped"], count: int = 1) -> None:
        """Count conflicts by how they were resolved."""
        self._instruments.conflicts.labels(*self._labels, resolution).add(count)

    def retry(self, reason: Literal["version"]) -> None:
        """Count an attempt after the first."""
        self._instruments.retries.labels(*self._labels, reason).add(1)
