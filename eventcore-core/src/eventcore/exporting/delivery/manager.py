"""The manager: which exporters there are, and one flush and shutdown for all of them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from typing import Final, TypeVar

from eventcore.exporting.delivery.distributor import Distributor
from eventcore.exporting.delivery.handle import ExporterHandle
from eventcore.exporting.delivery.pipeline import Pipeline
from eventcore.exporting.delivery.report import ExporterReport, Report
from eventcore.exporting.delivery.settings import PipelineSettings
from eventcore.recording.collector import Collector
from eventcore.recording.spans import AmbientContext, Tracer
from eventcore.recording.trace_context import TraceContext
from eventcore.recording.values import Resource

# What is kept of a timeout for letting go by force and for the report itself.
_RESERVE: Final = 0.2
_MOST_RESERVE: Final = 1.0
_REPLACED_TIMEOUT: Final = 5.0
_LONGEST: Final = 86_400.0
_logger: Final = logging.getLogger(__name__)


class ExporterManager:
    """Owns the pipelines.

    Args:
        tracer: whose ring of spans is distributed, and who is told of ambient trace contexts.
        collector: where the pipelines' metrics come from.
        resource: handed to every exporter.
    """

    def __init__(self, tracer: Tracer, collector: Collector, resource: Resource) -> None:
        self._tracer = tracer
        self._collector = collector
        self._resource = resource
        self._lock = threading.RLock()
        self._pipelines: dict[str, Pipeline] = {}
        self._distributor = Distributor(tracer.ring, self.pipelines)
        self._closed = False

    def pipelines(self) -> tuple[Pipeline, ...]:
        """The pipelines that there are now."""
        return tuple(self._pipelines.copy().values())

    def add(
        self, name: str, handle: ExporterHandle, settings: PipelineSettings, shown_settings: Mapping[str, object]
    ) -> Pipeline:
        """Launch a pipeline and return at once; one of that name is replaced: it delivers what it has and is shut down.

        Raises:
            RuntimeError: after ``shutdown``.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError(f"exporter {name!r} was not registered: the telemetry is shut down")
            predecessor = self._pipelines.get(name)
            self._distributor.distribute()
            pipeline = Pipeline(
                name,
                handle,
                settings,
                collector=self._collector,
                resource=self._resource,
                shown_settings=shown_settings,
                predecessor=predecessor,
                on_started=self._update_tracer,
            )
            self._pipelines[name] = pipeline
            self._update_tracer()
        if predecessor is not None:
            predecessor.begin_stop(time.monotonic() + _REPLACED_TIMEOUT, replaced=True)
            in_background(lambda: self._stop([predecessor], _REPLACED_TIMEOUT), f"eventcore-replace-{name}")
        pipeline.launch()
        self._distributor.launch()
        return pipeline

    def remove(self, name: str, timeout: float) -> ExporterReport:
        """Deliver what the exporter has, shut it down and forget it, within ``timeout`` seconds.

        Raises:
            KeyError: there is no exporter of that name.
        """
        timeout = _bounded(timeout)
        with self._lock:
            if name not in self._pipelines:
                raise KeyError(name)
            self._distributor.distribute()
            pipeline = self._pipelines.pop(name)
            self._update_tracer()
        return self._stop([pipeline], timeout).exporters[0]

    def flush(self, timeout: float) -> Report:
        """Deliver everything recorded before the call, to every exporter at once, within ``timeout`` seconds."""
        timeout = _bounded(timeout)
        deadline = time.monotonic() + timeout
        self._distributor.distribute()
        pipelines = self.pipelines()
        answers: list[Future[str]] = []
        for pipeline in pipelines:
            try:
                answers.append(pipeline.request_flush(deadline))
            except RuntimeError as error:
                refused: Future[str] = Future()
                refused.set_result(str(error))
                answers.append(refused)
        wait(answers, max(deadline - time.monotonic(), 0.0))
        reports: list[ExporterReport] = []
        for pipeline, answer in zip(pipelines, answers, strict=True):
            if not answer.done():
                problem, unknown = (
                    f"no answer within {timeout:g} s: {pipeline.problem or 'still exporting'}",
                    pipeline.in_flight,
                )
            elif failure := answer.exception():
                problem, unknown = str(failure), pipeline.in_flight
            else:
                problem, unknown = answer.result(), 0
            reports.append(pipeline.report(not problem, problem, unknown))
        return Report(tuple(reports))

    def shutdown(self, timeout: float) -> Report:
        """Deliver what there is and shut every exporter down, within ``timeout`` seconds; later calls only report."""
        timeout = _bounded(timeout)
        with self._lock:
            self._closed = True
            pipelines = list(self.pipelines())
        self._distributor.distribute()
        self._distributor.stop()
        report = self._stop(pipelines, timeout)
        self._update_tracer()
        return report

    def forget(self) -> None:
        """Leave the pipelines to the parent process: a forked child has none of their threads, and exports nothing."""
        self._lock = threading.RLock()
        self._closed = True
        self._pipelines = {}
        self._tracer.wanted = False
        self._tracer.ambient = ()
        self._distributor = Distributor(self._tracer.ring, self.pipelines)

    def lateness(self) -> float:
        """How many seconds the exporters' threads are behind, because something keeps the interpreter to itself."""
        return self._distributor.lateness()

    def wait_started(self, timeout: float) -> bool:
        """Wait until every exporter has started, up to ``timeout`` seconds; true when all have."""
        deadline = time.monotonic() + timeout
        started = [pipeline.started.wait(max(deadline - time.monotonic(), 0.0)) for pipeline in self.pipelines()]
        return all(started)

    def _stop(self, pipelines: list[Pipeline], timeout: float) -> Report:
        now = time.monotonic()
        deadline = now + timeout
        by_force_at = deadline - min(_MOST_RESERVE, timeout / 2)
        last_call = deadline - min(_RESERVE, timeout / 4)
        for pipeline in pipelines:
            pipeline.begin_stop(last_call)
        _await_finished(pipelines, by_force_at)
        for pipeline in pipelines:
            # A worker that is on its way through its last deliveries is left alone; one that sits in a hook is not.
            pipeline.force_stop(last_call)
        _await_finished(pipelines, last_call)
        reports: list[ExporterReport] = []
        for pipeline in pipelines:
            finished = pipeline.finished.is_set()
            problem = (
                pipeline.final_error
                if finished
                else f"not stopped within {timeout:g} s: {pipeline.problem or 'still exporting'}"
            )
            unknown = 0 if finished else pipeline.in_flight
            pipeline.abandon()
            reports.append(pipeline.report(not problem, problem, unknown))
        return Report(tuple(reports))

    def _update_tracer(self) -> None:
        """Tell the tracer who wants spans and whom to ask for the ambient trace context."""
        with self._lock:
            alive = [pipeline for pipeline in self._pipelines.values() if not pipeline.stopping]
            self._tracer.wanted = any(pipeline.takes_spans for pipeline in alive)
            self._tracer.ambient = tuple(_Guarded(pipeline) for pipeline in alive if pipeline.ambient is not None)


class _Guarded:
    """An exporter's ambient trace context, asked on the hot path: one that raises is asked no more."""

    __slots__ = ("_ask", "_pipeline")

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._ask: AmbientContext | None = pipeline.ambient

    def __call__(self) -> TraceContext | None:
        if self._ask is None:
            return None
        try:
            return self._ask()
        except Exception:
            self._ask = self._pipeline.ambient = None
            self._pipeline.logger.exception("its ambient trace context raised, and is not asked again")
            return None


def _bounded(timeout: float) -> float:
    """The timeout, at most a day: what waits longer than that waits for ever."""
    if not timeout >= 0:
        raise ValueError(f"timeout is {timeout!r}; expected seconds, 0 or more")
    return min(timeout, _LONGEST)


def _await_finished(pipelines: list[Pipeline], deadline: float) -> None:
    for pipeline in pipelines:
        pipeline.finished.wait(max(deadline - time.monotonic(), 0.0))


T = TypeVar("T")


def in_background(work: Callable[[], T], name: str) -> Future[T]:
    """Run ``work`` in a daemon thread of its own: unlike an executor's, it never holds up the end of the process."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001  # it goes to whoever waits for the future
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
