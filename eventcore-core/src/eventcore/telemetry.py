"""Telemetry: the one object that an application holds. It binds recording to exporting, and knows nothing of event stores."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, TypeVar

from eventcore.errors import ConfigurationError, Fault
from eventcore.exporting.configuration.discovery import check_exporter_name, default_exporter_name
from eventcore.exporting.configuration.loading import FailedExporter, load_exporters
from eventcore.exporting.configuration.settings import Configuration, load_configuration
from eventcore.exporting.delivery.manager import ExporterManager, in_background
from eventcore.exporting.delivery.pipeline import Pipeline
from eventcore.exporting.delivery.report import ExporterReport, Report
from eventcore.exporting.delivery.yielding import LoopYielder
from eventcore.exporting.registration import check_exporter
from eventcore.recording.collector import Collector
from eventcore.recording.ids import IdGenerator
from eventcore.recording.instruments import Callback, Counter, Gauge, Histogram, Instrument, UpDownCounter
from eventcore.recording.registry import SECONDS, InstrumentRegistry
from eventcore.recording.sampling import RateSampler
from eventcore.recording.spans import SilentTracer, Tracer, freeze_attributes
from eventcore.recording.values import Collection, Resource
from eventcore.version import __version__

__all__ = ["Collection", "ExporterReport", "FailedExporter", "Pipeline", "Report", "Telemetry"]

_DEFAULT_TIMEOUT: Final = 10.0
_START_LIMIT: Final = 1.0
_logger: Final = logging.getLogger(__name__)

T = TypeVar("T")
InstrumentT = TypeVar("InstrumentT", bound=Instrument[Any])


class Telemetry:
    """Instruments, spans and exporters of one application; make one and pass it to what records.

    The configuration is read when the object is made; exporters are imported and started by ``async with`` (or ``start``), off
    the event loop. What is recorded before is exported too.

    Args:
        config: the tables of ``eventcore.toml`` as a mapping, or the path of a file to read instead of the default one.
        exporters: names of the exporters to load, ``"all"`` or ``"none"``; left out, the configuration decides.
        service_name, resource, traces_per_second, verbosity, series_limit: as in the table ``[telemetry]``; above the file and
            below the environment.
        on_config_error: ``"raise"``, or ``"log"`` to go on with what is right in the configuration.

    Raises:
        ConfigurationError: the configuration has faults; all of them are listed.

    >>> import asyncio
    >>> async def main():
    ...     async with Telemetry(exporters="none") as telemetry:
    ...         shipped = telemetry.counter("orders.shipped", labels=("country",)).labels("FR")
    ...         shipped.add(1)
    ...         with telemetry.span("ship order"):
    ...             pass
    ...         return await telemetry.flush(1.0)
    >>> bool(asyncio.run(main()))
    True
    """

    def __init__(
        self,
        *,
        config: Mapping[str, Any] | Path | str | None = None,
        exporters: Sequence[str] | None = None,
        service_name: str | None = None,
        resource: Mapping[str, Any] | None = None,
        traces_per_second: float | Literal["all"] | None = None,
        verbosity: Literal["off", "normal", "verbose"] | None = None,
        series_limit: int | None = None,
        on_config_error: Literal["raise", "log"] = "raise",
    ) -> None:
        given = {
            "service_name": service_name,
            "resource": resource,
            "traces_per_second": traces_per_second,
            "verbosity": verbosity,
            "series_limit": series_limit,
        }
        self._on_config_error = on_config_error
        self.configuration: Configuration = load_configuration(
            config,
            exporters,
            environ=os.environ,
            cwd=Path.cwd(),
            arguments={"telemetry": {name: value for name, value in given.items() if value is not None}},
        )
        self._accept(self.configuration.faults)
        settings = self.configuration.telemetry
        self.verbosity: Final[Literal["off", "normal", "verbose"]] = settings.verbosity
        self.enabled: Final = settings.verbosity != "off"
        ids = IdGenerator()
        self.resource: Final = _resource(settings.service_name, ids.hex32(), settings.resource)
        self._sampler = RateSampler(settings.traces_per_second)
        self._tracer = Tracer(self._sampler, ids) if self.enabled else SilentTracer(self._sampler, ids)
        self._registry = InstrumentRegistry(series_limit=settings.series_limit, enabled=self.enabled)
        self._collector = Collector(self._registry)
        self._manager = ExporterManager(self._tracer, self._collector, self.resource)
        self._failed: tuple[FailedExporter, ...] = ()
        self._started = False
        self._stop_yielding: Callable[[], None] = lambda: None
        self.span = self._tracer.span
        self.current_span = self._tracer.current
        _forget_in_forked_child(self)

    # Instruments

    def counter(
        self,
        name: str,
        *,
        unit: str = "",
        description: str = "",
        labels: Iterable[str] = (),
        callback: Callback | None = None,
    ) -> Counter:
        """A total that only grows.

        Args:
            name: words of a-z and 0-9 joined by dots or underscores.
            unit: a UCUM unit: ``"s"``, ``"By"``, ``"{order}"``.
            description: one sentence for the reader of a dashboard.
            labels: names of the labels; never something of unlimited values, such as an id.
            callback: gives the total, or a mapping from label values (tuples) to totals; called at each collection, off the
                event loop.

        Raises:
            InvalidInstrument: a name does not fit, or the instrument exists with another shape.
        """
        return _observed(self._registry.counter(name, unit=unit, description=description, labels=labels), callback)

    def up_down_counter(self, name: str, *, unit: str = "", description: str = "", labels: Iterable[str] = ()) -> UpDownCounter:
        """A sum that grows and shrinks, such as what is in use; arguments as for ``counter``."""
        return self._registry.up_down_counter(name, unit=unit, description=description, labels=labels)

    def gauge(
        self,
        name: str,
        *,
        unit: str = "",
        description: str = "",
        labels: Iterable[str] = (),
        callback: Callback | None = None,
    ) -> Gauge:
        """A value that is what it is now; ``None`` from a callback makes it absent. Arguments as for ``counter``."""
        return _observed(self._registry.gauge(name, unit=unit, description=description, labels=labels), callback)

    def histogram(
        self,
        name: str,
        *,
        unit: str = "",
        description: str = "",
        labels: Iterable[str] = (),
        boundaries: Iterable[float] = SECONDS,
        callback: Callback | None = None,
    ) -> Histogram:
        """How values are distributed over ``boundaries``, which are ascending upper bounds.

        A ``callback`` gives a mapping from label values to ``HistogramCell`` with the same boundaries. Other arguments are
        those of ``counter``.
        """
        histogram = self._registry.histogram(name, unit=unit, description=description, labels=labels, boundaries=boundaries)
        return _observed(histogram, callback)

    def timer(
        self, name: str, *, description: str = "", labels: Iterable[str] = (), boundaries: Iterable[float] = SECONDS
    ) -> Histogram:
        """A histogram of seconds: ``with timer.labels(...).time():`` measures a block. Arguments as for ``histogram``."""
        return self.histogram(name, unit="s", description=description, labels=labels, boundaries=boundaries)

    def collect(self, timeout: float = _DEFAULT_TIMEOUT) -> Collection:
        """Every series now, as exporters would get it; blocks for as long as callbacks take, so call it off the event loop.

        Raises:
            TimeoutError: it took longer than ``timeout`` seconds.
        """
        return self._collector.collect(time.monotonic(), timeout)

    # Exporters

    def register_exporter(self, exporter: object, *, name: str | None = None) -> str:
        """Add an exporter, also while everything runs, and return its name at once; it is started in its own thread.

        One that is registered under the same name is replaced: it delivers what it has and is shut down.

        Args:
            exporter: an instance whose hooks are marked with ``hookimpl``.
            name: in configuration, labels and logs; left out, the name of its plugin, or of its class in snake case.

        Raises:
            InvalidExporter: the hooks do not fit; every problem is listed.
            ConfigurationError: the name, or the pipeline's settings for it, have faults.
            RuntimeError: after ``shutdown``.
        """
        default_name, origin = default_exporter_name(exporter, self.configuration.plugins)
        handle = check_exporter(exporter, origin)
        chosen = default_name if name is None else name
        check_exporter_name(chosen)
        if self.configuration.exporters_off:
            _logger.info("exporter %r is not started: EVENTCORE_EXPORTERS=none", chosen)
            return chosen
        if (fault := self.configuration.pull_interval_fault(chosen, handle)) is not None:
            self._accept([fault])
        self._manager.add(chosen, handle, self.configuration.pipeline_for(chosen), {})
        return chosen

    async def unregister_exporter(self, name: str, timeout: float = _DEFAULT_TIMEOUT) -> ExporterReport:
        """Let an exporter deliver what it has, shut it down and forget it, within ``timeout`` seconds.

        Raises:
            KeyError: there is no exporter of that name.
        """
        return await _off_loop(lambda: self._manager.remove(name, timeout), "eventcore-unregister")

    def exporters(self) -> tuple[Pipeline, ...]:
        """The exporters that there are: each with its ``name``, ``state``, ``problem`` and ``stats()``."""
        return self._manager.pipelines()

    @property
    def failed_exporters(self) -> tuple[FailedExporter, ...]:
        """The exporters that are configured and could not be made, with the reason."""
        return self._failed

    # Lifecycle

    async def start(self) -> None:
        """Import and start the exporters that the configuration names, off the event loop; again, nothing happens.

        Waits a second at most for them to have started. One that breaks is ``failed`` and the rest goes on.

        Raises:
            ConfigurationError: settings of exporters have faults.
        """
        await _off_loop(self.start_blocking, "eventcore-start")

    def start_blocking(self) -> None:
        """``start`` for code without an event loop."""
        if self._started:
            return
        self._started = True
        loaded = load_exporters(self.configuration)
        self._failed = loaded.failed
        self._accept(loaded.faults)
        for failed in loaded.failed:
            _logger.warning("exporter %r has failed: %s", failed.name, failed.reason)
        for ready in loaded.ready:
            self._manager.add(ready.name, ready.handle, ready.pipeline, ready.shown_settings)
        self._manager.wait_started(_START_LIMIT)

    def yield_from_loop(self) -> Callable[[], None]:
        """Have the running event loop let the exporters' threads run, also when it never waits; returns what ends that.

        An open store does so by itself, and so does ``async with`` a telemetry.
        """
        return LoopYielder(self._manager.lateness).stop

    async def flush(self, timeout: float = _DEFAULT_TIMEOUT) -> Report:
        """Have everything recorded until now delivered to every exporter, and say truthfully whether it was.

        Args:
            timeout: seconds; what has not been delivered by then is reported so, and stays pending.
        """
        return await _off_loop(lambda: self.flush_blocking(timeout), "eventcore-flush")

    def flush_blocking(self, timeout: float = _DEFAULT_TIMEOUT) -> Report:
        """``flush`` for code without an event loop."""
        return self._manager.flush(timeout)

    async def shutdown(self, timeout: float = _DEFAULT_TIMEOUT) -> Report:
        """Deliver what there is, shut every exporter down within ``timeout`` seconds, and say truthfully what was delivered."""
        return await _off_loop(lambda: self.shutdown_blocking(timeout), "eventcore-shutdown")

    def shutdown_blocking(self, timeout: float = _DEFAULT_TIMEOUT) -> Report:
        """``shutdown`` for code without an event loop."""
        return self._manager.shutdown(timeout)

    async def __aenter__(self) -> Telemetry:
        await self.start()
        self._stop_yielding = self.yield_from_loop()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.shutdown()
        finally:
            self._stop_yielding()

    # What it counts about itself

    @property
    def unsampled_traces(self) -> int:
        """Traces that head sampling left out."""
        return self._sampler.unsampled

    def series_overflow(self) -> dict[str, int]:
        """Per instrument, measurements that went to its overflow series because its cap was reached."""
        return self._registry.overflow()

    def start_anew(self) -> None:
        """Forget what was recorded and leave the exporters to the parent process: a forked child calls this by itself."""
        self._registry.reset()
        self._collector.reset()
        self._manager.forget()

    def _accept(self, faults: Sequence[Fault]) -> None:
        if not faults:
            return
        error = ConfigurationError(faults)
        if self._on_config_error == "raise":
            raise error
        _logger.error("%s", error)


def _observed(instrument: InstrumentT, callback: Callback | None) -> InstrumentT:
    if callback is not None:
        instrument.add_callback(callback)
    return instrument


def _resource(service_name: str, instance_id: str, more: Mapping[str, Any]) -> Resource:
    attributes = {
        "service.name": service_name or "unknown_service:python",
        "service.instance.id": instance_id,
        "process.pid": os.getpid(),
        "telemetry.sdk.name": "eventcore",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": __version__,
    }
    return Resource(freeze_attributes(attributes | dict(more)))


async def _off_loop(work: Callable[[], T], name: str) -> T:
    """Run blocking work in a thread of its own; a caller that is cancelled leaves it to end by its own deadline."""
    return await asyncio.wrap_future(in_background(work, name))


def _forget_in_forked_child(telemetry: Telemetry) -> None:
    """A forked child has none of its parent's threads: it starts at nothing, and its parent's totals are not its own."""
    reference = weakref.ref(telemetry)

    def forget() -> None:
        if (parent := reference()) is not None:
            parent.start_anew()

    os.register_at_fork(after_in_child=forget)
