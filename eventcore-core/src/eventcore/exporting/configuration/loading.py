"""From the configuration to exporters: imports plugins in turn, and makes their exporters side by side, each with a deadline.

Each exporter has a daemon thread of its own, which imports the plugin, converts its settings, calls it and
checks the exporter. The imports take turns. An import that overruns its deadline is not waited for: the next
one begins beside it. A thread that hangs in a plugin's code is left behind, because Python cannot end it.
"""

from __future__ import annotations

import contextvars
import inspect
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from math import inf
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, final

import msgspec

from eventcore.errors import ConfigurationError, Fault
from eventcore.exporting.configuration.discovery import FoundPlugin
from eventcore.exporting.configuration.selection import ExporterPlan
from eventcore.exporting.configuration.settings import Configuration
from eventcore.exporting.configuration.signature import bind_settings, masked, without_secrets
from eventcore.exporting.delivery.handle import ExporterHandle
from eventcore.exporting.delivery.report import ExporterReport, PipelineStats
from eventcore.exporting.delivery.settings import PipelineSettings
from eventcore.exporting.delivery.span_queue import SpanCounts
from eventcore.exporting.logs import bounded_logger
from eventcore.ground import describe_error, in_background, own_logger

if TYPE_CHECKING:
    from eventcore.exporting.process import ChildPlan

# However many plugins hang, an application waits no longer than this many times the longest `load_timeout`.
_LONGEST_WAIT: Final = 3
# Characters of the reason why an exporter has failed: it may list each problem of its hooks or of its signature.
_LONGEST_REASON: Final = 4000
_logger: Final = own_logger(__name__)

# The plugins that are being imported or made in the present context. A plugin that opens a store meanwhile would
# wait for itself.
_BEING_LOADED: Final[contextvars.ContextVar[frozenset[str]]] = contextvars.ContextVar(
    "eventcore_plugins_being_loaded", default=frozenset()
)


@final
class ReadyExporter(msgspec.Struct, frozen=True):
    """A checked exporter, its settings for the pipeline, and the plugin's own settings with secrets masked."""

    name: str
    handle: ExporterHandle
    pipeline: PipelineSettings
    shown_settings: Mapping[str, Any]


@final
class FailedExporter(msgspec.Struct, frozen=True):
    """An exporter whose configuration is right, but whose plugin cannot be imported, called or used."""

    name: str
    reason: str


@final
class AbsentExporter(msgspec.Struct, frozen=True, kw_only=True):
    """An exporter that the configuration enables and that does not run.

    Attributes:
        name: the exporter's name.
        state: ``loading``: its plugin is being imported or called, and the exporter joins when it comes.
            ``failed``: it will not come.
        problem: what it waits for, or why it has failed.
    """

    name: str
    state: Literal["loading", "failed"]
    problem: str

    def stats(self) -> PipelineStats:
        """The counters of an exporter that was given nothing."""
        return PipelineStats(spans=None, cycles={}, cpu_seconds=0.0)

    def report(self, kept: SpanCounts | None) -> ExporterReport:
        """Its part of the report of a flush or a shutdown; ``kept``: the spans that wait for it."""
        report = ExporterReport(name=self.name, state=self.state, delivered=False, reason=self.problem)
        if kept is None:
            return report
        return msgspec.structs.replace(
            report, spans_recorded=kept.recorded, spans_dropped=kept.dropped, spans_pending=kept.pending
        )


@final
class LoadedExporters(msgspec.Struct, frozen=True):
    """What has become of the exporters that the configuration enables.

    Attributes:
        ready: those that are made, in the order of the configuration.
        absent: those that are not: they load or have failed.
        failed: those of ``absent`` whose configuration has no fault.
        faults: every fault of the configuration that is known by now, core's and the plugins'.
    """

    ready: tuple[ReadyExporter, ...]
    absent: tuple[AbsentExporter, ...]
    failed: tuple[FailedExporter, ...]
    faults: tuple[Fault, ...]


_Outcome: TypeAlias = "ReadyExporter | FailedExporter | tuple[Fault, ...]"


class _Attempt:
    """Loading one exporter. The thread of the exporter writes it, other threads read it.

    Attributes:
        name: the name of the exporter.
        plugin: the plugin that makes it.
        timeout: seconds that a step may take before others no longer wait for it.
        step: what is being done, for messages; empty before the first step.
        since: when the step began (``time.monotonic``); infinity before the first one.
        imported: whether the next import may begin.
        outcome: what has become of it; ``None`` while it loads.
    """

    def __init__(self, plan: ExporterPlan, plugin: FoundPlugin, timeout: float) -> None:
        self.name = plan.name
        self.plugin = plugin
        self.timeout = timeout
        self.step = ""
        self.since = inf
        self.imported = False
        self.outcome: _Outcome | None = None

    def late_at(self) -> float:
        """When others stop waiting for it; infinity before the first step."""
        return self.since + self.timeout

    def absent(self) -> AbsentExporter:
        """What to show while no pipeline runs the exporter."""
        if self.outcome is None:
            waiting = f"{self.step} has not returned for {time.monotonic() - self.since:.1f} s" if self.step else ""
            problem = f"still loading: {waiting or 'waiting for the import of another plugin'}"
            return AbsentExporter(name=self.name, state="loading", problem=problem)
        if isinstance(self.outcome, FailedExporter):
            reason = self.outcome.reason
        elif isinstance(self.outcome, ReadyExporter):
            reason = "other parts of the configuration have faults, so that no exporter of it runs"
        else:
            reason = f"its configuration has faults: {'; '.join(map(str, self.outcome))}"
        return AbsentExporter(name=self.name, state="failed", problem=reason)


@final
class ExporterLoader:
    """Loads the exporters of a configuration. Every method may be called from any thread; ``load`` once, then ``admit``.

    Args:
        configuration: its exporters are loaded, and its faults are completed.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        # Guards the attempts and `_join`, and is notified when an attempt changes. Held while an exporter joins, which is
        # quick, and never while a plugin's code runs. Readers copy the dict, which needs no lock.
        self._changed = threading.Condition()
        self._attempts: dict[str, _Attempt] = {}
        self._join: Callable[[ReadyExporter], None] | None = None
        self._give_up: Callable[[str], object] = lambda _: None
        self._loaded = False

    def load(self, only: str | None = None) -> LoadedExporters:
        """Begin to load all exporters (or the one called ``only``), and wait until each is made, has failed or is late. No
        exporter is started.

        This blocks for seconds when a plugin hangs: do not call it on an event loop.
        """
        for plan in self._configuration.exporters:
            if plan.action == "load" and plan.found is not None and only in (None, plan.name):
                timeout = self._configuration.pipeline_for(plan.name).load_timeout
                self._attempts[plan.name] = _Attempt(plan, plan.found, timeout)
        attempts = list(self._attempts.values())
        for damage in self._configuration.damages:
            _logger.warning("the metadata of an installed distribution is damaged, and may hide an exporter: %s", damage)
        around = _BEING_LOADED.get()
        for attempt in attempts:
            if attempt.plugin.value in around:
                reason = "this telemetry is started while the same plugin is imported or made; start it with exporters='none'"
                attempt.outcome = FailedExporter(attempt.name, f"{attempt.plugin.origin}: {reason}")
        if pending := [attempt for attempt in attempts if attempt.outcome is None]:
            in_background(lambda: self._import_in_turn(pending, around), "eventcore-loading")
            self._wait(pending)
        self._loaded = True
        return self.loaded()

    def loaded(self) -> LoadedExporters:
        """What has become of the exporters by now."""
        attempts = list(self._attempts.copy().values())
        outcomes = [attempt.outcome for attempt in attempts]
        of_plugins = [fault for outcome in outcomes if isinstance(outcome, tuple) for fault in outcome]
        return LoadedExporters(
            ready=tuple(outcome for outcome in outcomes if isinstance(outcome, ReadyExporter)),
            absent=tuple(attempt.absent() for attempt in attempts if not isinstance(attempt.outcome, ReadyExporter)),
            failed=tuple(outcome for outcome in outcomes if isinstance(outcome, FailedExporter)),
            faults=(*self._configuration.faults, *of_plugins),
        )

    def admit(self, join: Callable[[ReadyExporter], None], give_up: Callable[[str], object]) -> None:
        """Let exporters join: those that are made, now and in the order of the configuration, and late ones when they come.

        Args:
            join: adds one exporter. When it raises, the exporter has failed. It must not wait.
            give_up: called with the name of each exporter that has failed.
        """
        with self._changed:
            self._join, self._give_up = join, give_up
            settled = [attempt for attempt in self._attempts.values() if attempt.outcome is not None]
            late = [attempt for attempt in self._attempts.values() if attempt.outcome is None]
        for attempt in settled:
            # The faults are raised or logged together, by the caller.
            self._finish(attempt, log_faults=False)
        for attempt in late:
            _logger.warning("exporter %r is late, and joins when it comes: %s", attempt.name, attempt.absent().problem)

    def absent(self) -> tuple[AbsentExporter, ...]:
        """The exporters of the configuration that do not run, in its order."""
        return tuple(attempt.absent() for attempt in self._attempts.copy().values())

    def problem(self) -> str:
        """Why there may be exporters that are not even absent; empty when the configuration names all of them rightly."""
        if not self._loaded:
            return ""
        if self._join is None:
            return f"{ConfigurationError(self.loaded().faults)}\nso no exporter of the configuration runs"
        faults = set(self._configuration.faults) - set(self._configuration.tolerated)
        hidden = [fault for fault in self._configuration.faults if fault in faults and _may_hide_exporters(fault)]
        return str(ConfigurationError(hidden)) if hidden else ""

    def forget(self, name: str) -> AbsentExporter | None:
        """Let the exporter of that name never join; ``None`` when there is none, or it has joined."""
        with self._changed:
            attempt = self._attempts.pop(name, None)
        return attempt.absent() if attempt is not None else None

    def supersede(self, name: str, add: Callable[[], object]) -> None:
        """Add another exporter under a name by ``add``, and let the one of the configuration never join."""
        with self._changed:
            add()
            self._attempts.pop(name, None)

    def end_by_fork(self) -> None:
        """Give up what still loads, in a forked child: the threads that load it stay with the parent, and so do their locks."""
        self._changed = threading.Condition()
        for attempt in self._attempts.values():
            attempt.outcome = attempt.outcome or FailedExporter(attempt.name, "the process was forked while it was loaded")

    def _wait(self, pending: list[_Attempt]) -> None:
        """Wait until each of these is settled or late, but no longer than ``_LONGEST_WAIT`` times the longest timeout."""
        end = time.monotonic() + _LONGEST_WAIT * max(attempt.timeout for attempt in pending)
        with self._changed:
            while (now := time.monotonic()) < end:
                late_at = [attempt.late_at() for attempt in pending if attempt.outcome is None]
                if not (waited_for := [at for at in late_at if at > now]):
                    return
                self._changed.wait(min(end, *waited_for) - now)

    def _import_in_turn(self, attempts: list[_Attempt], around: frozenset[str]) -> None:
        for attempt in attempts:
            self._launch(attempt, around)
            deadline = time.monotonic() + attempt.timeout
            with self._changed:
                while not attempt.imported and (left := deadline - time.monotonic()) > 0:
                    self._changed.wait(left)

    def _launch(self, attempt: _Attempt, around: frozenset[str]) -> None:
        self._step(attempt, f"importing {attempt.plugin.value}")
        # Before the plugin can log by it.
        bounded_logger(f"eventcore.exporters.{attempt.name}")
        context = contextvars.Context()
        context.run(_BEING_LOADED.set, around | {attempt.plugin.value})
        in_background(lambda: context.run(self._load, attempt), f"eventcore-load-{attempt.name}")

    def _load(self, attempt: _Attempt) -> None:
        outcome: _Outcome
        try:
            factory = attempt.plugin.load()
            self._step(attempt, f"making the exporter by {attempt.plugin.value}", imported=True)
            outcome = _make_exporter(attempt.name, attempt.plugin, factory, self._configuration)
        except BaseException as error:  # noqa: BLE001  # a plugin may raise anything, which must not stop the others
            outcome = FailedExporter(attempt.name, describe_error(error, _LONGEST_REASON))
        with self._changed:
            attempt.outcome, attempt.imported = outcome, True
            admitted = self._join is not None
            self._changed.notify_all()
        if admitted:
            self._finish(attempt, log_faults=True)

    def _step(self, attempt: _Attempt, step: str, *, imported: bool = False) -> None:
        with self._changed:
            attempt.step, attempt.since, attempt.imported = step, time.monotonic(), imported
            self._changed.notify_all()

    def _finish(self, attempt: _Attempt, *, log_faults: bool) -> None:
        """Add an exporter whose loading has ended, or log why not."""
        with self._changed:
            outcome = attempt.outcome
            # Another exporter may have been registered under this name meanwhile.
            if self._attempts.get(attempt.name) is not attempt:
                return
            if isinstance(outcome, ReadyExporter) and self._join is not None:
                try:
                    self._join(outcome)
                    del self._attempts[attempt.name]
                except Exception as error:  # noqa: BLE001  # it is refused; the reason is shown as the exporter's
                    outcome = attempt.outcome = FailedExporter(attempt.name, describe_error(error, _LONGEST_REASON))
        if not isinstance(outcome, ReadyExporter):
            self._give_up(attempt.name)
        if isinstance(outcome, FailedExporter):
            _logger.warning("exporter %r has failed: %s", attempt.name, outcome.reason)
        elif isinstance(outcome, tuple) and log_faults:
            _logger.error("exporter %r has failed: %s", attempt.name, ConfigurationError(outcome))


def _may_hide_exporters(fault: Fault) -> bool:
    """Whether a fault may keep an exporter out of the plans: one in ``[telemetry]``, or in an exporter's own keys, does not."""
    key = fault.key.lower().removeprefix("eventcore_").replace("__", ".")
    table, *rest = key.split(".")
    return table != "telemetry" and (len(rest) < 2 or rest[1] == "plugin")


def load_exporters(configuration: Configuration) -> LoadedExporters:
    """Load the exporters of a configuration without starting them, as far as they come in time."""
    return ExporterLoader(configuration).load()


def _make_exporter(name: str, plugin: FoundPlugin, factory: Callable[..., Any], configuration: Configuration) -> _Outcome:
    """Convert the settings of a plugin, call it and check the exporter; or return the faults of its settings.

    Raises:
        InvalidExporter: the plugin does not fit the specification.
        BaseException: whatever the plugin raises when it is called, except for ``SystemExit``.
    """
    settings = configuration.settings_of(name)
    arguments, faults = bind_settings(factory, settings, name=name, where=configuration.file, origin=plugin.origin)
    # Core's faults of this section count, too: the pipeline would run with defaults in place of what the operator wrote.
    if faults or configuration.faults_of(name):
        # Without calling the plugin, only a class attribute can say that this is a pull exporter.
        return tuple(faults + configuration.pull_interval_faults(name, inspect.getattr_static(factory, "interval", ...)))
    try:
        exporter = factory(**arguments)
    except BaseException as error:  # noqa: BLE001  # a plugin may raise anything
        text = without_secrets(describe_error(error, _LONGEST_REASON), arguments, settings)
        # The types are right, but the plugin refuses a value, such as a port of 70000. Without settings there is no value to
        # refuse, and the plugin itself is broken.
        if isinstance(error, ValueError) and settings:
            return (Fault(next(iter(settings.values())).where, f"exporters.{name}", text.removeprefix("ValueError: ")),)
        ended = "tried to end the process: " if isinstance(error, SystemExit) else ""
        return FailedExporter(name, f"{plugin.origin}: making the exporter {ended or 'raised '}{text}")
    # Imported when there is an exporter to load, as is what runs it.
    from eventcore.exporting.registration import check_exporter

    handle = check_exporter(exporter, plugin.origin)
    pipeline = configuration.pipeline_for(name, getattr(exporter, "pipeline_defaults", {}))
    faults = configuration.pull_interval_faults(name, handle.interval)
    if pipeline.process:
        from eventcore.exporting.process import ChildPlan, ProcessHandle

        plan = ChildPlan(
            name=name,
            plugin=(plugin.name, plugin.value, plugin.distribution, plugin.version),
            settings=settings,
            file=configuration.file,
            limits=configuration.telemetry.span_limits,
            load_timeout=pipeline.load_timeout,
        )
        faults += configuration.process_faults(name, _process_problem(name, handle, plan))
        handle = ProcessHandle(handle, plan)
    return tuple(faults) or ReadyExporter(name, handle, pipeline, masked(settings, factory))


def _process_problem(name: str, handle: ExporterHandle, plan: ChildPlan) -> str:
    """Why an exporter cannot run in a process of its own, and what to do; empty when it can."""
    if handle.interval is None:
        return f"{name!r} is a pull exporter, which answers scrapes from the store's process; leave 'process' out"
    if not hasattr(socket, "socketpair") or os.name != "posix":
        return "a process of its own needs a POSIX system; leave 'process' out"
    if not sys.executable:
        return "the program does not know its Python interpreter (sys.executable is empty); leave 'process' out"
    if problem := plan.problem():
        return f"its settings cannot be given to another process ({problem}); use texts, numbers and tables, or leave it out"
    return ""
