"""Metrics of projections: counts and times as they happen; position, lag and state through callbacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, final, get_args

from eventcore.catalogue.metrics import EventOutcome, ProjectionMetrics, ProjectionState
from eventcore.catalogue.progress import ProjectionProgress
from eventcore.recording import CallbackHandle, CounterCell, Gauge
from eventcore.stores.values import ProjectionRecord
from eventcore.telemetry import Telemetry

_OUTCOMES: Final[tuple[EventOutcome, ...]] = get_args(EventOutcome)
_STATES: Final[tuple[ProjectionState, ...]] = get_args(ProjectionState)


@final
class ProjectionInstruments(ProjectionMetrics):
    """The ``projections.*`` metrics of one store."""

    def __init__(self, telemetry: Telemetry, store: str) -> None:
        super().__init__(telemetry)
        self.store = store
        self._watched: dict[str, tuple[ProjectionProgress, ...]] = {}
        # What the store's records say, whichever process runs the projections. Replaced as a whole: other threads read them.
        self._recorded: dict[str, ProjectionProgress] = {}
        self._waiting: dict[str, int] = {}
        self._handles: list[CallbackHandle] = [
            self._show(self.lag, self._anywhere, lambda progress: progress.lag()),
            self._show(self.lag_time, self._anywhere, lambda progress: progress.lag_time()),
            self._show(self.eta, self._anywhere, lambda progress: progress.eta()),
            self._show(self.position, self._anywhere, lambda progress: progress.position),
            self._show(self.checkpoint, self._anywhere, lambda progress: progress.checkpoint),
            self._show(self.heartbeat_age, self._shown, lambda progress: progress.heartbeat_age()),
            self._show(self.leader, self._shown, lambda progress: int(progress.leader)),
            self.dead_letters_waiting.add_callback(
                lambda: {(self.store, name): waiting for name, waiting in self._waiting.items()}
            ),
            self.state.add_callback(lambda: dict(self._states())),
        ]

    def bind(self, projection: str) -> ProjectionSeries:
        """The series of one projection."""
        return ProjectionSeries(self, projection)

    def watch(self, projection: str, progress: ProjectionProgress) -> None:
        """Show the progress of a runner, in place of runners of the same projection that have ended."""
        others = tuple(other for other in self._watched.get(projection, ()) if other.state not in ("failed", "stopped"))
        self._watched[projection] = (*others, progress)

    def ended(self, projection: str, progress: ProjectionProgress) -> None:
        """Note that a runner has ended: show its last state, unless another runner of this process goes on."""
        if others := tuple(other for other in self._watched.get(projection, ()) if other is not progress):
            self._watched[projection] = others

    def runners(self) -> dict[str, ProjectionProgress]:
        """For each projection that this process runs or has run, the progress of its runner."""
        return dict(self._shown())

    def observe_records(self, records: Sequence[ProjectionRecord], head: int) -> None:
        """Show projections by the store's records, read before the store's head position was ``head``.

        A runner of this process that leads knows better, and is shown instead. No records: nothing is known.
        """
        recorded: dict[str, ProjectionProgress] = {}
        for record in records:
            position = record.checkpoint.position
            progress = self._recorded.get(record.name)
            if progress is None or progress.position is None or position < progress.position:
                # New, or set back by a reset or a restored backup.
                progress = ProjectionProgress()
                progress.position = position
            progress.checkpoint = position
            progress.observe_head(max(head, position))
            progress.advance(position)
            recorded[record.name] = progress
        self._recorded = recorded
        self._waiting = {record.name: record.dead_letters for record in records}

    def closed(self) -> None:
        """Stop showing what is true of an open store only."""
        for handle in self._handles:
            handle.close()

    def _show(
        self,
        gauge: Gauge,
        projections: Callable[[], Iterator[tuple[str, ProjectionProgress]]],
        value: Callable[[ProjectionProgress], int | float | None],
    ) -> CallbackHandle:
        return gauge.add_callback(lambda: {(self.store, name): value(progress) for name, progress in projections()})

    def _states(self) -> Iterator[tuple[tuple[str, ...], Any]]:
        for name, progress in self._shown():
            current = progress.state
            for state in _STATES:
                yield (self.store, name, state), int(state == current)

    def _anywhere(self) -> Iterator[tuple[str, ProjectionProgress]]:
        """For each projection the runner of this process that leads, or else what the store's record says."""
        recorded = dict(self._recorded)
        for name, progress in self._shown():
            by_record = recorded.pop(name, None)
            yield name, progress if progress.position is not None or by_record is None else by_record
        yield from recorded.items()

    def _shown(self) -> Iterator[tuple[str, ProjectionProgress]]:
        """For each projection the runner that leads, or else the newest runner."""
        for name, runners in self._watched.copy().items():
            yield name, next((progress for progress in runners if progress.leader), runners[-1])


@final
class ProjectionSeries:
    """The series of one projection that are recorded as things happen."""

    def __init__(self, instruments: ProjectionInstruments, projection: str) -> None:
        self.store = instruments.store
        labels = self._labels = (instruments.store, projection)
        self._instruments = instruments
        self.events: Final[dict[EventOutcome, CounterCell]] = {
            outcome: instruments.events.labels(*labels, outcome) for outcome in _OUTCOMES
        }
        self.handle = instruments.handle_duration.labels(*labels)
        self.load = instruments.batch_duration.labels(*labels, "load")
        self.apply = instruments.batch_duration.labels(*labels, "apply")
        self.commit = instruments.batch_duration.labels(*labels, "commit")
        self.dead_letters = instruments.dead_letters.labels(*labels)

    def retried(self, error: BaseException) -> None:
        """Count a retry after ``error``."""
        self._instruments.retries.labels(*self._labels, type(error).__name__).add(1)

    def failed(self, error: BaseException) -> None:
        """Count a failure."""
        self._instruments.failures.labels(*self._labels, type(error).__name__).add(1)
