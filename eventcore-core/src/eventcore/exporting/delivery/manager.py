"""The manager: which exporters there are, and one flush and shutdown for all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import wait
from typing import TYPE_CHECKING, Final, final

import msgspec

from eventcore.errors import InvalidExporter
from eventcore.exporting.delivery.distributor import Distributor
from eventcore.exporting.delivery.handle import ExporterHandle
from eventcore.exporting.delivery.report import ExporterReport, Report
from eventcore.exporting.delivery.settings import PipelineSettings
from eventcore.exporting.delivery.span_queue import SpanCounts, SpanQueue
from eventcore.ground import LoopSlices, in_background
from eventcore.recording.collector import Collector
from eventcore.recording.tracing import Tracer
from eventcore.recording.values import Resource

if TYPE_CHECKING:
    from eventcore.exporting.delivery.pipeline import Pipeline

# Seconds of a timeout that are reserved for calling `shutdown()` beside a hanging hook, and for
# building the report.
_FORCE_RESERVE: Final = 1.0
_REPORT_RESERVE: Final = 0.2
# Seconds that a replaced exporter has to deliver what it has and to shut down.
_REPLACED_TIMEOUT: Final = 5.0
# Seconds that a fork waits for hooks.
_FORK_LIMIT: Final = 0.5
# Waiting on a condition accepts no infinite timeout.
_LONGEST_TIMEOUT: Final = 86_400.0
_FORKED_BY_A_HOOK: Final = "this process was forked by a hook of an exporter: no exporter runs here"


@final
class _Fork(msgspec.Struct, frozen=True):
    """A fork that has not ended: the pipelines that wait for it, and whether a hook of an exporter forks."""

    pipelines: tuple[Pipeline, ...] = ()
    in_hook: bool = False


_NO_FORK: Final = _Fork()


class ExporterManager:
    """Owns the pipelines. Every method may be called from any thread; those with a timeout wait for the exporters.

    Args:
        tracer: its ring of spans is distributed. It is told whether any exporter takes spans, and
            which ambient trace contexts to ask.
        collector: gives the pipelines' metrics.
        resource: handed to every exporter.

    Attributes:
        trial: whether exporters that are added from now on are only tried out.
        slices: the event loops that pack spans for exporters in processes of their own.
    """

    def __init__(self, tracer: Tracer, collector: Collector, resource: Resource) -> None:
        self._tracer = tracer
        self._collector = collector
        self._resource = resource
        # Guards `_pipelines` and `_closed`. Readers copy the dict, which needs no lock. Re-entrant,
        # because `add` updates the tracer while it holds it. Never held while an exporter is waited
        # for. Locks are taken in the order manager, distributor, request box, span queue.
        self._lock = threading.RLock()
        self._pipelines: dict[str, Pipeline] = {}
        # The spans for exporters that are still loading. Guarded and read as `_pipelines` is.
        self._kept: dict[str, SpanQueue] = {}
        self._distributor = Distributor(tracer.ring, self.pipelines, self._queues)
        # The settings of the plugins with secrets masked, by name of the exporter.
        self._shown_settings: dict[str, Mapping[str, object]] = {}
        self._closed = False
        self.trial = False
        self.slices = LoopSlices()
        # The forks that have not ended, by the thread that forks.
        self._forking: dict[int, _Fork] = {}

    def pipelines(self) -> tuple[Pipeline, ...]:
        """The present pipelines, without those that are being replaced or removed."""
        return tuple(self._pipelines.copy().values())

    def add(
        self, name: str, handle: ExporterHandle, settings: PipelineSettings, shown_settings: Mapping[str, object]
    ) -> Pipeline:
        """Launch a pipeline and return at once. A pipeline of the same name is replaced.

        A replaced exporter delivers what it has and is shut down before the new one starts. What it
        cannot deliver within 5 seconds is delivered by the new one.

        Raises:
            RuntimeError: after ``shutdown``.
            InvalidExporter: the instance is registered under another name.
        """
        # An application without exporters never imports what runs them.
        from eventcore.exporting.delivery.pipeline import Pipeline
        from eventcore.exporting.delivery.worker import Worker

        with self._lock:
            if self._closed:
                raise RuntimeError(f"exporter {name!r} was not registered: the telemetry is shut down")
            # One instance cannot tell two pipelines apart: their cycles would mix in its attributes.
            for other in self._pipelines.values():
                if other.handle.exporter is handle.exporter and other.name != name:
                    problem = f"the same instance is registered as {other.name!r}; expected an instance for each name"
                    raise InvalidExporter(f"exporter {name!r}: {problem}")
            predecessor = self._pipelines.get(name)
            # Spans that ended before this moment are for the predecessor.
            self._distributor.distribute()
            handle.slices = self.slices
            pipeline = Pipeline(name, handle, settings, predecessor, self._kept.pop(name, None))
            self._pipelines[name] = pipeline
            self._shown_settings[name] = shown_settings
            self._update_tracer()
        worker = Worker(pipeline, self._collector, self._resource, shown_settings, predecessor, self._update_tracer, self.trial)
        if predecessor is not None:
            # Beside the caller, which does not wait: the successor's worker waits for the predecessor.
            in_background(lambda: self._stop([predecessor], _REPLACED_TIMEOUT), f"eventcore-replace-{name}")
        worker.launch()
        self._distributor.launch()
        return pipeline

    def keep_spans(self, name: str, capacity: int) -> None:
        """Keep up to ``capacity`` spans for an exporter that is still loading, until it is added or never comes."""
        with self._lock:
            if self._closed or name in self._pipelines:
                return
            self._distributor.distribute()
            self._kept[name] = SpanQueue(capacity)
            self._update_tracer()
        self._distributor.launch()

    def kept_spans(self, name: str, *, drop: bool = False) -> SpanCounts | None:
        """The account of the spans that are kept for an exporter, or ``None``. ``drop``: it never comes, so drop them."""
        with self._lock:
            queue = self._kept.pop(name, None) if drop else self._kept.get(name)
            if queue is not None and drop:
                queue.close()
                self._update_tracer()
        return None if queue is None else queue.counts()

    def remove(self, name: str, timeout: float) -> ExporterReport:
        """Deliver what the exporter has, shut it down and forget it, within ``timeout`` seconds.

        Raises:
            KeyError: there is no exporter of that name.
        """
        timeout = _checked(timeout)
        with self._lock:
            if name not in self._pipelines:
                raise KeyError(name)
            self._distributor.distribute()
            pipeline = self._pipelines.pop(name)
            self._update_tracer()
        return self._stop([pipeline], timeout).exporters[0]

    def flush(self, timeout: float) -> Report:
        """Deliver everything recorded before the call, to every exporter at once, within ``timeout`` seconds."""
        timeout = _checked(timeout)
        deadline = time.monotonic() + timeout
        self._distributor.distribute()
        requests = [(pipeline, pipeline.status.ask(flush=True, deadline=deadline)) for pipeline in self.pipelines()]
        # Workers that hang do not answer; their requests fail by `Pipeline.tick`.
        wait([request for _, request in requests], max(deadline - time.monotonic(), 0.0))
        return Report(tuple(pipeline.flush_report(request, timeout) for pipeline, request in requests))

    def shutdown(self, timeout: float) -> Report:
        """Deliver what there is and shut every exporter down, within ``timeout`` seconds. Later calls only report."""
        timeout = _checked(timeout)
        with self._lock:
            self._closed = True
            pipelines = self.pipelines()
        # Once more by hand: what ended since the last round is still delivered.
        self._distributor.distribute()
        self._distributor.stop()
        report = self._stop(pipelines, timeout)
        for queue in self._queues():
            queue.close()
        self._update_tracer()
        return report

    def before_fork(self) -> None:
        """In the parent: wait, half a second at most, until no exporter is in a hook, and let them prepare for the fork."""
        deadline = time.monotonic() + _FORK_LIMIT
        pipelines = self.pipelines()
        in_hook = any(pipeline.runner.in_hook() for pipeline in pipelines)
        self._forking[threading.get_ident()] = _Fork(pipelines, in_hook)
        for pipeline in pipelines:
            pipeline.before_fork(deadline)

    def after_fork_in_parent(self) -> None:
        """In the parent: go on."""
        for pipeline in self._forking.pop(threading.get_ident(), _NO_FORK).pipelines:
            pipeline.runner.fork.after_in_parent()

    def restart_in_child(self, resource: Resource) -> None:
        """In a forked child, which has none of the threads: start every exporter anew, with nothing to deliver.

        Everything that another thread of the parent may have held at the fork, such as a lock, is replaced.

        In a child that an exporter's own hook has forked nothing starts: a ``start`` that forks would be called in its child,
        fork there once more, and never come to an end.

        Args:
            resource: that of the child.
        """
        fork, shown_settings = self._forking.get(threading.get_ident(), _NO_FORK), self._shown_settings
        self._lock = threading.RLock()
        # The event loops of the parent do not run here.
        self.slices = LoopSlices()
        self._resource = resource
        self._pipelines, self._kept, self._shown_settings, self._forking = {}, {}, {}, {}
        self._update_tracer()
        # Spans that ended before the fork are delivered by the parent.
        self._tracer.ring.take_all()
        self._distributor = Distributor(self._tracer.ring, self.pipelines, self._queues)
        for pipeline in fork.pipelines:
            pipeline.leave_in_child()
            if self._closed or pipeline.status.stopping.is_set():
                continue
            if fork.in_hook:
                from eventcore.exporting.delivery.pipeline import Pipeline

                self._pipelines[pipeline.name] = unstarted = Pipeline(pipeline.name, pipeline.handle, pipeline.settings)
                unstarted.never_start(_FORKED_BY_A_HOOK)
            else:
                self.add(pipeline.name, pipeline.handle, pipeline.settings, shown_settings[pipeline.name])

    def lateness(self) -> float:
        """How many seconds the exporters' threads are behind their schedule, because something else holds the GIL."""
        return self._distributor.lateness()

    def wait_started(self, timeout: float) -> bool:
        """Wait until every exporter has started, up to ``timeout`` seconds; true when all have."""
        return _wait_all([pipeline.started for pipeline in self.pipelines()], time.monotonic() + timeout)

    def _stop(self, pipelines: Sequence[Pipeline], timeout: float) -> Report:
        """Stop pipelines side by side and report, within ``timeout`` seconds.

        Workers deliver and shut down by themselves until ``force_at``. Those that have not finished
        get ``shutdown`` called from another thread, and until ``last_call`` to finish. What is then
        left is counted as dropped.
        """
        deadline = time.monotonic() + timeout
        force_at = deadline - min(_FORCE_RESERVE, timeout / 2)
        last_call = deadline - min(_REPORT_RESERVE, timeout / 4)
        finished = [pipeline.finished for pipeline in pipelines]
        for pipeline in pipelines:
            pipeline.status.stop(last_call)
        _wait_all(finished, force_at)
        for pipeline in pipelines:
            pipeline.force_stop(last_call)
        _wait_all(finished, last_call)
        return Report(tuple(pipeline.final_report(timeout) for pipeline in pipelines))

    def _queues(self) -> tuple[SpanQueue, ...]:
        return tuple(self._kept.copy().values())

    def _update_tracer(self) -> None:
        """Tell the tracer whether any exporter takes spans, and which ambient trace contexts to ask."""
        with self._lock:
            active = [pipeline for pipeline in self._pipelines.values() if not pipeline.status.is_ending()]
            # Whether an exporter that is loading takes spans is not known yet.
            loading = bool(self._kept) and not self._closed
            self._tracer.wanted = loading or any(pipeline.takes_spans for pipeline in active)
            ambient = tuple(found for pipeline in active if (found := pipeline.status.ambient))
            self._tracer.ambient = ambient
            self._tracer.ring.attached = tuple(each for each in ambient if each.attaches)
            # Of several, the one that names a span need not be the one that attaches it.
            self._tracer.ring.only = ambient[0] if len(ambient) == 1 and ambient[0].attaches else None


def _checked(timeout: float) -> float:
    """The timeout, limited to a day.

    Raises:
        ValueError: it is negative or not a number.
    """
    if not timeout >= 0:
        raise ValueError(f"timeout is {timeout!r}; expected seconds, 0 or more")
    return min(timeout, _LONGEST_TIMEOUT)


def _wait_all(events: Sequence[threading.Event], deadline: float) -> bool:
    """Wait until all events are set or the deadline has passed; whether all are set."""
    return all(event.wait(max(deadline - time.monotonic(), 0.0)) for event in events)
