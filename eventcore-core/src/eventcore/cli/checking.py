"""``eventcore check``: is the configuration right, and does what goes in come out?"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final, final

import msgspec

from eventcore.cli.output import Output
from eventcore.cli.pulling import check_pull
from eventcore.errors import Fault
from eventcore.exporting.configuration.loading import load_exporters
from eventcore.exporting.configuration.settings import Configuration, load_configuration
from eventcore.exporting.delivery.pipeline import Pipeline
from eventcore.exporting.delivery.report import ExporterReport, Report
from eventcore.recording.ids import IdGenerator
from eventcore.recording.trace_context import TraceContext
from eventcore.telemetry import Telemetry

METRIC: Final = "eventcore.check"
SPAN: Final = "eventcore check"
_SHUTDOWN: Final = 2.0


@final
class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of the test through one exporter."""

    name: str
    plugin: str
    ok: bool
    state: str
    sent: tuple[str, ...] = ()
    url: str | None = None
    message: str


@final
class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``eventcore check --json``."""

    version: int = 1
    ok: bool
    files: tuple[str, ...]
    exporters_off: bool
    faults: tuple[Fault, ...]
    exporters: tuple[Result, ...] = ()

    @property
    def exit_code(self) -> int:
        """As ``eventcore --help`` documents it."""
        return 2 if self.faults else int(not self.ok)


def check(output: Output, *, config: Path | None, timeout: float) -> int:
    """Check everything, print what came of it and return the exit code."""
    configuration = load_configuration(config, environ=os.environ, cwd=Path.cwd())
    faults = (*configuration.faults, *load_exporters(configuration).faults)
    results = () if faults or configuration.exporters_off else _results(config, timeout)
    answer = CheckResult(
        ok=not faults and all(result.ok for result in results),
        files=configuration.files,
        exporters_off=configuration.exporters_off,
        faults=faults,
        exporters=results,
    )
    if output.as_json:
        output.object(answer)
    else:
        _print(output, answer, configuration)
    return answer.exit_code


def _print(output: Output, answer: CheckResult, configuration: Configuration) -> None:
    output.line(f"Configuration: {', '.join(answer.files) or 'no file, defaults and environment only'}")
    output.faults(answer.faults)
    if answer.faults:
        return
    if answer.exporters_off:
        output.line("EVENTCORE_EXPORTERS=none: nothing is exported.")
    elif not answer.exporters:
        output.line("No exporter is enabled. 'eventcore plugins' lists what there is.")
    elif configuration.telemetry.verbosity == "off":
        output.line("verbosity is off: exporters are started, but nothing is sent.")
    output.table(
        ["exporter", "plugin", "result", "what"],
        [[result.name, result.plugin, "ok" if result.ok else "failed", result.message] for result in answer.exporters],
    )


def _results(config: Path | None, timeout: float) -> tuple[Result, ...]:
    deadline = time.monotonic() + timeout
    telemetry = Telemetry(config=config)
    plugins = {plan.name: plan.plugin for plan in telemetry.configuration.exporters}
    try:
        telemetry.start_blocking()
        pipelines = telemetry.exporters()
        _record(telemetry, {kind for pipeline in pipelines for kind in pipeline.handle.kinds})
        report = telemetry.flush_blocking(max(deadline - time.monotonic(), 0.1))
        results = [_result(pipeline, plugins[pipeline.name], report, telemetry.enabled, deadline) for pipeline in pipelines]
        results += [
            Result(name=failed.name, plugin=plugins[failed.name], ok=False, state="failed", message=failed.reason)
            for failed in telemetry.failed_exporters
        ]
    finally:
        telemetry.shutdown_blocking(_SHUTDOWN)
    order = list(plugins)
    return tuple(sorted(results, key=lambda result: order.index(result.name)))


def _record(telemetry: Telemetry, kinds: set[str]) -> None:
    """One metric, of kinds that every exporter together takes, and one span, whatever the sampling."""
    description = "Sent by 'eventcore check'"
    telemetry.counter(METRIC, unit="{check}", description=description).add(1)
    if "counters" not in kinds:
        telemetry.gauge(f"{METRIC}.value", description=description).set(1)
        telemetry.histogram(f"{METRIC}.values", description=description).record(1)
    ids = IdGenerator()
    sampled = TraceContext(trace_id=int(ids.hex32(), 16), span_id=1, trace_flags=1)
    with telemetry.span(SPAN, parent=sampled):
        pass


def _result(pipeline: Pipeline, plugin: str, report: Report, enabled: bool, deadline: float) -> Result:
    exporter = report[pipeline.name]
    sent = _sent(pipeline) if enabled else ()
    url = None
    if pipeline.handle.interval is None:
        pulled = check_pull(pipeline.handle.exporter, METRIC if enabled else None, exporter, pipeline.problem, deadline)
        ok, message, url = pulled
    else:
        ok, message = _delivered(pipeline, exporter, sent)
    return Result(name=pipeline.name, plugin=plugin, ok=ok, state=exporter.state, sent=sent, url=url, message=message)


def _sent(pipeline: Pipeline) -> tuple[str, ...]:
    metric = ("metric",) if set(pipeline.handle.kinds) - {"spans"} else ()
    return metric + (("span",) if "spans" in pipeline.handle.kinds else ())


def _delivered(pipeline: Pipeline, report: ExporterReport, sent: tuple[str, ...]) -> tuple[bool, str]:
    refused = report.points_rejected + sum(report.spans_dropped.values())
    if report.delivered and not refused:
        return True, f"{' and '.join(sent)} delivered" if sent else "started; nothing was sent"
    why = report.reason or pipeline.problem or "no reason was given"
    if report.delivered:
        return False, f"the backend refused {refused} of what was sent: {why}"
    return False, f"not delivered: {why}"
