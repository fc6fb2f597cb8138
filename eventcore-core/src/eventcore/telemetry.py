"""Telemetry: the object that an application holds to record values and spans and to export them."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import msgspec

from eventcore.errors import ConfigurationError, Fault
from eventcore.exporting.configuration import (
    AbsentExporter,
    ExporterLoader,
    FailedExporter,
    LoadedExporters,
    ReadyExporter,
    exporter_name,
    load_configuration,
)
from eventcore.exporting.configuration.settings import TelemetrySettings
from eventcore.exporting.delivery import ExporterManager, ExporterReport, Report
from eventcore.ground import LoopYielder, around_fork, did_you_mean, in_background, own_logger, when_used
from eventcore.ground.arguments import one_of
from eventcore.recording import (
    Collection,
    Collector,
    IdGenerator,
    InstrumentRegistry,
    RateSampler,
    RatioSampler,
    Recorder,
    Resource,
    Sampler,
    SilentTracer,
    Tracer,
)
from eventcore.recording.attributes import freeze_attributes
from eventcore.recording.names import canonical_name
from eventcore.version import __version__

if TYPE_CHECKING:
    from eventcore.exporting.delivery.pipeline import Pipeline

__all__ = ["AbsentExporter", "Collection", "ExporterReport", "FailedExporter", "Pipeline", "Report", "Telemetry"]

_DEFAULT_TIMEOUT: Final = 10.0
# The longest that `start` waits for the exporters' own start, in seconds. A slower exporter joins later.
_START_LIMIT: Final = 1.0
_NO_INSTANCE: Final = (
    "an instance that code registers runs in the store's process; let the configuration load the exporter, which another "
    "process can make again, or leave 'process' out"
)
_logger: Final = own_logger(__name__)

T = TypeVar("T")

# An application without exporters never imports what runs them.
__getattr__ = when_used(__name__, Pipeline="eventcore.exporting.delivery.pipeline")


class Telemetry(Recorder):
    """The instruments, spans and exporters of one application.

    Make one ``Telemetry`` and pass it to all code that records. The constructor reads the configuration, but does
    not raise its faults. ``async with`` (or ``start``) imports and starts the exporters, off the event loop, and
    raises every fault of the configuration in one error. Values recorded before the start are exported, too.
    Leaving ``async with`` (or ``shutdown``) exports everything recorded and shuts the exporters down.

    Instruments and spans may be used from any thread.

    Args:
        config: the tables of ``eventcore.toml`` as a mapping, which is merged over the file; or the path of
            a file to read in place of the default file.
        exporters: the exporters to load: a list of names, ``"all"`` or ``"none"``. Left out, the configuration decides.
        service_name, resource, traces_per_second, verbosity, series_limit: as in the table ``[telemetry]``.
            They take precedence over the file; environment variables take precedence over them.
        on_config_error: ``"raise"``: ``start`` raises all faults of the configuration in one
            ``ConfigurationError``. ``"log"``: ``start`` logs them as one error, each fault once. Defaults
            take the place of faulty settings, and exporters that have faults are not loaded.

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

    # Those of tables that other parts of the program read.
    _further_faults: tuple[Fault, ...] = ()

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
        self._on_config_error = one_of("on_config_error", on_config_error, "raise", "log")
        self._reserved: frozenset[str] = frozenset()
        self._logged: set[Fault] = set()
        arguments = {"telemetry": {name: value for name, value in given.items() if value is not None}}
        self.configuration: Final = load_configuration(config, exporters, arguments=arguments)
        settings = self.configuration.telemetry
        for problem in self.configuration.ignored:
            _logger.warning("%s", problem)
        super().__init__(
            InstrumentRegistry(
                series_limit=settings.series_limit,
                total_series_limit=settings.total_series_limit,
                boundaries=settings.histograms,
                enabled=self.enabled,
            ),
            (Tracer if self.enabled else SilentTracer)(_sampler(settings), IdGenerator(), settings.span_limits),
        )
        self.resource = self._new_resource()
        self._collector = Collector(self._registry)
        self._manager = ExporterManager(self._tracer, self._collector, self.resource)
        # Held during a start, so that a second start waits for the first one and then has the same outcome.
        self._starting = threading.Lock()
        self._loader = ExporterLoader(self.configuration)
        self._loaded: LoadedExporters | None = None
        self._stop_yielding: Callable[[], None] = lambda: None
        around_fork(
            self._manager,
            before=ExporterManager.before_fork,
            after_in_parent=ExporterManager.after_fork_in_parent,
        )
        around_fork(self, after_in_child=Telemetry._start_anew)

    @property
    def verbosity(self) -> Literal["off", "normal", "verbose"]:
        """How much is recorded."""
        return self.configuration.telemetry.verbosity

    @property
    def enabled(self) -> bool:
        """Whether anything is recorded: false when ``verbosity`` is ``"off"``."""
        return self.verbosity != "off"

    def collect(self, timeout: float = _DEFAULT_TIMEOUT) -> Collection:
        """The current values of all series, as exporters receive them.

        Do not call this on an event loop: it blocks while the instruments' callbacks run.

        Args:
            timeout: the most seconds to take.

        Raises:
            TimeoutError: the collection took longer than ``timeout``.
        """
        return self._collector.collect(time.monotonic(), timeout)

    def reserve_names(self, names: Iterable[str]) -> None:
        """Say which instruments there are whose names begin with ``eventcore.``; a store does this.

        A setting of an exporter that names another one, such as a misspelt key of a table of names,
        is then a fault. The exporter has the names in ``instrument_names``, by setting.
        """
        self._reserved = frozenset(map(canonical_name, names))

    # Exporters

    def register_exporter(self, exporter: object, *, name: str | None = None) -> str:
        """Add an exporter at any time before ``shutdown``, and return its name at once.

        The exporter is started in its own thread. It replaces an exporter of the same name, which first
        exports what was recorded for it and is shut down. If ``EVENTCORE_EXPORTERS=none`` is set, the exporter
        is not started.

        Args:
            exporter: an instance whose hooks are marked with ``hookimpl``.
            name: the name in configuration, labels and logs. The default is the name of the exporter's
                plugin; for an exporter that belongs to no plugin, the name of its class in snake case.

        Raises:
            InvalidExporter: the exporter does not fit the hook specification (every problem is listed), or the same
                instance is registered under another name.
            InvalidInput: the name is not valid.
            ConfigurationError: the configuration of this exporter has faults (unless ``on_config_error="log"``).
            RuntimeError: after ``shutdown``.
        """
        from eventcore.exporting.registration import check_exporter, log_replaced

        chosen, origin = exporter_name(exporter, self.configuration.plugins, name)
        handle = check_exporter(exporter, origin)
        if self.configuration.exporters_off:
            _logger.info("exporter %r is not started: EVENTCORE_EXPORTERS=none", chosen)
            return chosen
        pull_faults = self.configuration.pull_interval_faults(chosen, handle.interval)
        pipeline = self.configuration.pipeline_for(chosen, getattr(exporter, "pipeline_defaults", {}))
        process_faults = self.configuration.process_faults(chosen, _NO_INSTANCE if pipeline.process else "")
        own_faults = [*self.configuration.faults_of(chosen), *pull_faults, *process_faults]
        self._report([*own_faults, *self._misspelt(chosen, exporter)])
        handle.registered = True
        ready = ReadyExporter(chosen, handle, pipeline, {})
        present = next((each.handle for each in self._manager.pipelines() if each.name == chosen), None)
        self._loader.supersede(chosen, lambda: self._join(ready))
        if present is not None:
            log_replaced(chosen, present, handle)
        return chosen

    async def unregister_exporter(self, name: str, timeout: float = _DEFAULT_TIMEOUT) -> ExporterReport:
        """Let an exporter export what was recorded for it, shut it down and remove it.

        Args:
            name: the name that ``register_exporter`` returned, or that the configuration gives.
            timeout: the most seconds to take, 0 or more.

        Raises:
            KeyError: there is no exporter of that name.
        """
        if (absent := self._loader.forget(name)) is not None:
            return absent.report(self._manager.kept_spans(name, drop=True))
        return await _off_loop(lambda: self._manager.remove(name, timeout), "eventcore-unregister")

    def exporters(self) -> tuple[Pipeline | AbsentExporter, ...]:
        """The exporters, each with its ``name``, ``state``, ``problem`` and ``stats()``.

        An exporter of the configuration that does not run is an ``AbsentExporter``, whose state is ``loading`` or ``failed``.
        """
        # In this order: an exporter that joins meanwhile is in both, and counts as joined.
        absent, pipelines = self._loader.absent(), self._manager.pipelines()
        joined = {pipeline.name for pipeline in pipelines}
        return (*pipelines, *(exporter for exporter in absent if exporter.name not in joined))

    @property
    def failed_exporters(self) -> tuple[FailedExporter, ...]:
        """The exporters whose configuration is valid, but whose plugin could not be imported or used, with the reason."""
        return self._loader.loaded().failed

    # Lifecycle

    async def start(self) -> None:
        """Import and start the exporters that the configuration enables, off the event loop.

        ``start`` waits for the plugin and the constructor of an exporter as long as its ``load_timeout`` each, and
        at most one second for exporters to start. A slower exporter is ``loading``, and joins when it comes. An
        exporter whose plugin raises is in ``failed_exporters``, and the others run. A second call does nothing.

        Raises:
            ConfigurationError: the configuration has faults (unless ``on_config_error="log"``). One error
                lists all of them, also those of the plugins' own settings. No exporter of the configuration
                runs, and every further call raises the error again. The faults of a plugin that comes late are
                logged, and its exporter is ``failed``.
        """
        # In the caller's context, by which a plugin is recognised that starts a telemetry while it is imported itself.
        context = contextvars.copy_context()
        await _off_loop(lambda: context.run(self.start_blocking), "eventcore-start")

    def start_blocking(self, only: str | None = None, *, trial: bool = False) -> None:
        """``start`` for code without an event loop.

        Args:
            only: the name of the one exporter to start; ``None`` starts all that the configuration enables.
            trial: whether the exporters are only tried out, as ``eventcore check`` does: they join no other process, and
                ``shutdown`` exports nothing more than the flushes before it.
        """
        with self._starting:
            if self._loaded is not None:
                self._report(self._loaded.faults)
                return
            loaded = self._loader.load(only)
            misspelt = [fault for ready in loaded.ready for fault in self._misspelt(ready.name, ready.handle.exporter)]
            self._manager.trial = trial
            self._loaded = msgspec.structs.replace(loaded, faults=(*loaded.faults, *misspelt, *self._further_faults))
            self._report(self._loaded.faults)
            for late in self._loader.absent():
                if late.state == "loading":
                    self._manager.keep_spans(late.name, self.configuration.pipeline_for(late.name).span_queue)
            self._loader.admit(self._join, lambda name: self._manager.kept_spans(name, drop=True))
            self._manager.wait_started(_START_LIMIT)

    def add_faults(self, faults: Sequence[Fault]) -> None:
        """Report faults of a table that another part of the program reads, such as ``[health]``: with all others at the start.

        Raises:
            ConfigurationError: the telemetry was started before (unless ``on_config_error="log"``).
        """
        self._further_faults += tuple(fault for fault in faults if fault not in self._further_faults)
        if faults and self._loaded is not None:
            self._report(faults)

    def yield_from_loop(self) -> Callable[[], None]:
        """Make the running event loop yield to the exporters' threads when they are late, and pack spans for exporters in
        processes of their own. Call the returned function to stop.

        An event loop that never waits would starve these threads (see ``eventcore.ground.pacing``). An open store and
        ``async with`` on a telemetry call this themselves.
        """
        stop_yielding, stop_lending = LoopYielder(self._manager.lateness).stop, self._manager.slices.lend()

        def stop() -> None:
            stop_yielding()
            stop_lending()

        return stop

    async def flush(self, timeout: float = _DEFAULT_TIMEOUT) -> Report:
        """Deliver everything recorded before the call to every exporter. The report says what was and was not delivered.

        Args:
            timeout: the most seconds to take, 0 or more. What is not delivered by then stays pending.
        """
        return await _off_loop(lambda: self.flush_blocking(timeout), "eventcore-flush")

    def flush_blocking(self, timeout: float = _DEFAULT_TIMEOUT) -> Report:
        """``flush`` for code without an event loop."""
        return self._complete(self._loader.absent(), self._manager.flush(timeout))

    async def shutdown(self, timeout: float = _DEFAULT_TIMEOUT) -> Report:
        """Deliver everything recorded before the call and shut every exporter down. The report says what was delivered.

        Further calls only return a report. No exporter can be registered afterwards.

        Args:
            timeout: the most seconds to take, 0 or more. What is not delivered by then is lost.
        """
        return await _off_loop(lambda: self.shutdown_blocking(timeout), "eventcore-shutdown")

    def shutdown_blocking(self, timeout: float = _DEFAULT_TIMEOUT) -> Report:
        """``shutdown`` for code without an event loop."""
        return self._complete(self._loader.absent(), self._manager.shutdown(timeout))

    async def __aenter__(self) -> Telemetry:
        await self.start()
        self._stop_yielding = self.yield_from_loop()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.shutdown()
        finally:
            self._stop_yielding()

    # Counts about telemetry itself

    @property
    def ignored_span_changes(self) -> int:
        """How often an attribute, an event, a link or a status was set after the end of its span, and ignored."""
        return self._tracer.ring.ignored

    @property
    def unsampled_traces(self) -> int:
        """The number of traces that head sampling did not record."""
        return self._tracer.sampler.unsampled

    def series_overflow(self) -> dict[str, int]:
        """By instrument, the number of values that were recorded in its overflow series because of ``series_limit``."""
        return self._registry.overflow()

    def _start_anew(self) -> None:
        """In a forked child: set all values to zero, take a new instance id, and start the exporters once more."""
        self._registry.reset()
        self._collector.reset()
        self._loader.end_by_fork()
        # A thread of the parent may have held the lock at the fork; that thread does not exist in the child.
        self._starting = threading.Lock()
        self.resource = self._new_resource()
        self._manager.restart_in_child(self.resource)

    def _new_resource(self) -> Resource:
        settings = self.configuration.telemetry
        return _resource(settings.service_name, self._tracer.ids.hex32(), settings.resource)

    def _join(self, ready: ReadyExporter) -> None:
        self._manager.add(ready.name, ready.handle, ready.pipeline, ready.shown_settings)
        from eventcore.exporting.registration import older_hooks

        if outdated := older_hooks(ready.handle):
            _logger.warning("exporter %r: %s", ready.name, outdated)

    def _complete(self, absent: Sequence[AbsentExporter], report: Report) -> Report:
        """The report with a part for each exporter of the configuration that did not run before the call: it got nothing."""
        reported = {exporter.name for exporter in report.exporters}
        parts = [each.report(self._manager.kept_spans(each.name)) for each in absent if each.name not in reported]
        return Report((*report.exporters, *parts), self._loader.problem())

    def _misspelt(self, name: str, exporter: object) -> Iterator[Fault]:
        """A fault for each instrument that a setting of the exporter names, and that eventcore does not have."""
        try:
            named = {str(setting): tuple(names) for setting, names in getattr(exporter, "instrument_names", {}).items()}
        except Exception:  # noqa: BLE001  # an attribute of an exporter may be anything
            return
        for setting, names in named.items():
            for given in names if self._reserved else ():
                if given.startswith("eventcore.") and canonical_name(given) not in self._reserved:
                    close = did_you_mean(canonical_name(given), self._reserved)
                    problem = f"eventcore has no instrument of this name{close}; see docs/telemetry.md for all names"
                    yield Fault(f"exporter {name!r}", f"exporters.{name}.{setting}.{given}", problem)

    def _report(self, faults: Sequence[Fault]) -> None:
        """Raise the faults if the application must not go on; else log, as one error, those not logged before."""
        if self._on_config_error == "raise" and set(faults) - set(self.configuration.tolerated):
            raise ConfigurationError(faults)
        # Faults of a registered exporter's section come again when the telemetry is started.
        if new := [fault for fault in faults if fault not in self._logged]:
            self._logged.update(new)
            _logger.error("%s", ConfigurationError(new))


def _sampler(settings: TelemetrySettings) -> Sampler:
    if not settings.sampler:
        return RateSampler(settings.traces_per_second)
    kind = settings.sampler.removeprefix("parentbased_")
    ratio = {"always_on": 1.0, "always_off": 0.0}.get(kind, settings.sampler_ratio)
    follows_parent = kind != settings.sampler
    if not follows_parent:
        _logger.warning(
            "the sampler %r is not parent-based: spans are recorded whatever the caller's trace decided, so that traces may "
            "have gaps; use 'parentbased_%s'",
            settings.sampler,
            kind,
        )
    return RatioSampler(ratio, follows_parent=follows_parent)


def _resource(service_name: str, instance_id: str, attributes: Mapping[str, Any]) -> Resource:
    own = {
        "service.name": service_name or "unknown_service:python",
        "service.instance.id": instance_id,
        "process.pid": os.getpid(),
        "telemetry.sdk.name": "eventcore",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": __version__,
    }
    return Resource(freeze_attributes(own | dict(attributes)))


async def _off_loop(work: Callable[[], T], name: str) -> T:
    """Run blocking work in its own thread. When the caller is cancelled, the work goes on until its deadline."""
    return await asyncio.wrap_future(in_background(work, name))
