"""``eventcore check``: checks the configuration, and sends a test metric and a test span through each exporter."""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import Any, Final, final

import msgspec

from eventcore.cli.output import Output, count_faults
from eventcore.cli.parsing import add_command, add_config, add_timeout
from eventcore.cli.pulling import check_pull
from eventcore.errors import ConfigurationError, Fault
from eventcore.exporting.delivery.pipeline import Pipeline
from eventcore.exporting.delivery.report import ExporterReport
from eventcore.ground import did_you_mean
from eventcore.health.settings import configured_health
from eventcore.recording import IdGenerator, TraceContext
from eventcore.telemetry import Telemetry

METRIC: Final = "eventcore.check"
SPAN: Final = "eventcore check"
_SHUTDOWN_TIMEOUT: Final = 2.0


@final
class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of the test for one exporter."""

    name: str
    plugin: str
    ok: bool
    state: str
    sent: tuple[str, ...] = ()
    url: str | None = None
    message: str
    account: str = ""


@final
class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``eventcore check --json``."""

    files: tuple[str, ...]
    exporters_off: bool
    faults: tuple[Fault, ...]
    exporters: tuple[Result, ...] = ()


def add_check(commands: Any) -> None:
    """Add the command to the parsers of ``eventcore``."""
    summary = "send a test metric and a test span through each exporter"
    parser = add_command(commands, "check", _check, summary)
    parser.add_argument("name", nargs="?", metavar="NAME", help="check this exporter alone")
    add_config(parser)
    add_timeout(parser)


def _check(output: Output, options: argparse.Namespace) -> int:
    """Check the configuration, start every enabled exporter, send one test metric (eventcore.check) and one test span
    ("eventcore check") through each, and report whether they arrived. An exporter that is scraped passes if its page shows
    the test metric. If another process already serves the address of the page, that page must show metrics of eventcore.

    JSON (--json):
      {"version": 1, "ok", "error", "files": [path], "exporters_off": bool, "faults": [{"where", "key", "problem"}],
       "exporters": [{"name", "plugin", "ok", "state", "sent": [...], "url", "message", "account"}]}
      "sent" holds "metric" and "span", as far as the exporter takes them; "url" may be null. "account" says how many spans and
      points were delivered, dropped and refused, and the last error.

    With NAME: start and check this exporter alone. It fails if the configuration does not enable it.
    """
    telemetry = Telemetry(config=options.config)
    telemetry.add_faults(configured_health(telemetry.configuration)[1])
    faults = telemetry.configuration.tolerated
    results: list[Result] = []
    try:
        telemetry.start_blocking(options.name, trial=True)
        # The timeout is for delivering: importing the plugins does not count.
        results = _results(telemetry, time.monotonic() + options.timeout)
        if options.name is not None and not results:
            if (problem := _unknown(telemetry, options.name)) is not None:
                return output.fail(2, problem)
            results = [_not_enabled(telemetry, options.name)]
    except ConfigurationError as error:
        faults = error.faults
    finally:
        telemetry.shutdown_blocking(_SHUTDOWN_TIMEOUT)
    answer = CheckResult(
        files=telemetry.configuration.files,
        exporters_off=telemetry.configuration.exporters_off,
        faults=faults,
        exporters=tuple(results),
    )
    code = 2 if faults else int(not all(result.ok for result in results))
    named = options.name is not None
    print_text = partial(_print, output, answer, recording=telemetry.enabled, named=named)
    return output.answer(code, answer, print_text, count_faults(faults))


def _print(output: Output, answer: CheckResult, *, recording: bool, named: bool) -> None:
    output.line(f"Configuration: {', '.join(answer.files) or 'no file, defaults and environment only'}")
    output.faults(answer.faults)
    if answer.faults:
        return
    if answer.exporters_off:
        output.line("EVENTCORE_EXPORTERS=none: nothing is exported.")
    elif not answer.exporters:
        output.line("No exporter is enabled. 'eventcore plugins' lists the installed exporters.")
    elif not recording:
        output.line("verbosity is off: exporters are started, but nothing is sent.")
    output.table(
        ["exporter", "plugin", "result", "what"],
        [[result.name, result.plugin, "ok" if result.ok else "failed", result.message] for result in answer.exporters],
    )
    if named:
        for result in filter(lambda result: result.account, answer.exporters):
            output.line(f"Account: {result.account}")


def _unknown(telemetry: Telemetry, name: str) -> str | None:
    """What is wrong with a name that no exporter has; ``None`` if one has it."""
    known = [plan.name for plan in telemetry.configuration.exporters]
    if name in known:
        return None
    return f"there is no exporter {name!r}{did_you_mean(name, known)}; known are {', '.join(known) or 'none'}"


def _not_enabled(telemetry: Telemetry, name: str) -> Result:
    """The result for an exporter that is not enabled."""
    plan = next(plan for plan in telemetry.configuration.exporters if plan.name == name)
    state = plan.action.replace("_", " ")
    return Result(name=name, plugin=plan.plugin, ok=False, state=state, message=f"{state}: {plan.reason}")


def _results(telemetry: Telemetry, deadline: float) -> list[Result]:
    """Record the test values, export them and say for each exporter whether they arrived, in the order of configuration."""
    plugins = {plan.name: plan.plugin for plan in telemetry.configuration.exporters}
    pipelines = [exporter for exporter in telemetry.exporters() if isinstance(exporter, Pipeline)]
    _record(telemetry, {kind for pipeline in pipelines for kind in pipeline.handle.kinds})
    report = telemetry.flush_blocking(max(deadline - time.monotonic(), 0.1))
    results = {
        pipeline.name: _result(pipeline, plugins[pipeline.name], report[pipeline.name], telemetry.enabled, deadline)
        for pipeline in pipelines
    }
    for absent in telemetry.exporters():
        if not isinstance(absent, Pipeline):
            results[absent.name] = Result(
                name=absent.name, plugin=plugins[absent.name], ok=False, state=absent.state, message=absent.problem
            )
    return [results[name] for name in plugins if name in results]


def _record(telemetry: Telemetry, kinds: set[str]) -> None:
    """Record one metric, of a kind that the exporters take, and one span, which is sampled whatever the sampling rate."""
    description = "Sent by 'eventcore check'"
    telemetry.counter(METRIC, unit="{check}", description=description).add(1)
    if "counters" not in kinds:
        telemetry.gauge(f"{METRIC}.value", description=description).set(1)
        telemetry.histogram(f"{METRIC}.values", description=description).record(1)
    sampled = TraceContext(trace_id=int(IdGenerator().hex32(), 16), span_id=1, trace_flags=1)
    with telemetry.span(SPAN, parent=sampled):
        pass


def _result(pipeline: Pipeline, plugin: str, report: ExporterReport, enabled: bool, deadline: float) -> Result:
    kinds = pipeline.handle.kinds
    sent = [name for name, takes in (("metric", set(kinds) - {"spans"}), ("span", "spans" in kinds)) if takes and enabled]
    url = None
    if pipeline.handle.interval is None:
        metric = METRIC if enabled else None
        ok, message, url = check_pull(pipeline.handle.exporter, metric, report, pipeline.problem, deadline)
    else:
        ok, message = _delivered(pipeline, report, sent)
    return Result(
        name=pipeline.name,
        plugin=plugin,
        ok=ok,
        state=report.state,
        sent=tuple(sent),
        url=url,
        message=message,
        account=str(report),
    )


def _delivered(pipeline: Pipeline, report: ExporterReport, sent: list[str]) -> tuple[bool, str]:
    refused = report.points_rejected + sum(report.spans_dropped.values())
    if report.delivered and not refused:
        return True, f"{' and '.join(sent)} delivered" if sent else "started; nothing was sent"
    reason = report.reason or pipeline.problem or "no reason was given"
    if report.delivered:
        return False, f"the backend refused {refused} of the points and spans sent: {reason}"
    return False, f"not delivered: {reason}"
