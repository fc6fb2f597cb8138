"""What is recorded of projections: counts and times as they happen, and how each is getting on through callbacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, TypeAlias, final, get_args

from eventcore.catalogue.declaring import Declaring
from eventcore.catalogue.progress import ProjectionProgress, ProjectionState
from eventcore.recording import CallbackHandle, CounterCell, Gauge
from eventcore.telemetry import Telemetry

EventOutcome: TypeAlias = Literal["applied", "skipped", "failed"]
_OUTCOMES: Final[tuple[EventOutcome, ...]] = get_args(EventOutcome)
_STATES: Final[tuple[ProjectionState, ...]] = get_args(ProjectionState)


@final
class ProjectionInstruments:
    """The ``projections.*`` rows for one store."""

    def __init__(self, telemetry: Telemetry, store: str) -> None:
        declared = Declaring(telemetry)
        self.store = store
        self.events = declared.counter("projections.events")
        self.handle_duration = declared.histogram("projections.handle.duration")
        self.batch_duration = declared.histogram("projections.batch.duration")
        self.retries = declared.counter("projections.retries")
        self.failures = declared.counter("projections.failures")
        self.dead_letters = declared.counter("projections.dead.letters")
        self._watched: dict[str, tuple[ProjectionProgress, ...]] = {}
        self._handles: list[CallbackHandle] = [
            self._show(declared.gauge("projections.lag"), lambda progress: progress.lag()),
            self._show(declared.gauge("projections.lag.time"), lambda progress: progress.lag_time()),
            self._show(declared.gauge("projections.eta"), lambda progress: progress.eta()),
            self._show(declared.gauge("projections.position"), lambda progress: progress.position),
            self._show(declared.gauge("projections.checkpoint"), lambda progress: progress.checkpoint),
            self._show(declared.gauge("projections.heartbeat.age"), lambda progress: progress.heartbeat_age()),
            self._show(declared.gauge("projections.leader"), lambda progress: int(progress.leader)),
            declared.gauge("projections.state").add_callback(lambda: dict(self._states())),
        ]

    def bind(self, projection: str) -> ProjectionSeries:
        """The series of one projection."""
        return ProjectionSeries(self, projection)

    def watch(self, projection: str, progress: ProjectionProgress) -> None:
        """Show how a runner is getting on; what is shown of runners that have ended gives way to it."""
        others = tuple(other for other in self._watched.get(projection, ()) if other.state not in ("failed", "stopped"))
        self._watched[projection] = (*others, progress)

    def ended(self, projection: str, progress: ProjectionProgress) -> None:
        """A runner has ended: its last state stays to be seen, unless another of this process goes on."""
        if others := tuple(other for other in self._watched.get(projection, ()) if other is not progress):
            self._watched[projection] = others

    def closed(self) -> None:
        """Show what is only true of an open store no longer."""
        for handle in self._handles:
            handle.close()

    def _show(self, gauge: Gauge, value: Callable[[ProjectionProgress], int | float | None]) -> CallbackHandle:
        return gauge.add_callback(lambda: {(self.store, name): value(progress) for name, progress in self._shown()})

    def _states(self) -> Iterator[tuple[tuple[str, ...], Any]]:
        for name, progress in self._shown():
            current = progress.state
            for state in _STATES:
                yield (self.store, name, state), int(state == current)

    def _shown(self) -> Iterator[tuple[str, ProjectionProgress]]:
        """Of each projection the runner that leads, else the newest."""
        for name, runners in self._watched.copy().items():
            yield name, next((progress for progress in runners if progress.leader), runners[-1])


@final
class ProjectionSeries:
    """The series of one projection that are recorded as things happen."""

    def __init__(self, instruments: ProjectionInstruments, projection: str) -> None:
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
        """Count another try after ``error``."""
        self._instruments.retries.labels(*self._labels, type(error).__name__).add(1)

    def failed(self, error: BaseException) -> None:
        """Count a failure."""
        self._instruments.failures.labels(*self._labels, type(error).__name__).add(1)
