"""One case: a store with two healthy exporters and one that misbehaves in one hook. Prints what came of it as JSON.

``python -m tests.faults.case HOOK MISBEHAVIOUR def|async``
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from eventcore import Command, Event, StreamId, open_store
from eventcore.exporting import CounterData, SpanData, hookimpl
from eventcore.telemetry import Report, Telemetry
from tests.faults.misbehaviours import MISBEHAVIOURS, Surroundings

HOOKS: Final = (
    "start",
    "begin",
    "export_counters",
    "export_gauges",
    "export_histograms",
    "export_spans",
    "flush",
    "shutdown",
    "ambient_context",
)
AMBIENT: Final = ("current", "attach", "detach")
MAKING: Final = ("import", "constructor")
FLUSH: Final = 1.5
SHUTDOWN: Final = 2.0
# What may come on top of a deadline: threads wait for each other's turns on a busy machine.
NOISE: Final = 0.75
_ARGUMENTS: Final = {
    "start": "context",
    "begin": "signal, attempt",
    "export_counters": "counters, timeout",
    "export_gauges": "gauges, timeout",
    "export_histograms": "histograms, timeout",
    "export_spans": "spans, timeout",
    "flush": "signal, timeout",
    "shutdown": "timeout",
    "ambient_context": "",
}
# What the hooks do when they do not misbehave: the exporter knows which spans it has delivered.
_BOOKKEEPING: Final = {
    "begin": ["        if signal == 'spans':", "            self.held = ()"],
    "export_spans": ["        self.held = (*self.held, *(span.context.span_id for span in spans))"],
    "flush": ["        if signal == 'spans':", "            self.delivered = self.delivered | set(self.held)"],
}


class Noted(Event):
    text: str


class Note(Command[None]):
    stream: StreamId

    def handle(self, state: None) -> Any:
        yield self.stream, Noted(text="a fact")


class Healthy:
    """Keeps what it committed: spans by id, and the newest total of commands."""

    interval = 0.2

    def __init__(self) -> None:
        self.spans: list[int] = []
        self.total = 0
        self._held: list[int] = []

    @hookimpl
    def begin(self, signal: str) -> None:
        if signal == "spans":
            self._held = []

    @hookimpl
    def export_counters(self, counters: Sequence[CounterData]) -> None:
        for counter in counters:
            if counter.name == "eventcore.commands.total":
                self.total = int(sum(point.value for point in counter.points))

    @hookimpl
    def export_spans(self, spans: Sequence[SpanData]) -> None:
        self._held += [span.context.span_id for span in spans if span.name == "execute Note"]

    @hookimpl
    def flush(self, signal: str) -> None:
        if signal == "spans":
            self.spans += self._held
            self._held = []

    def differs_from(self, sent: int) -> int:
        """How many commands are missing or counted twice, among the spans and in the total."""
        different = len(set(self.spans))
        return abs(different - sent) + len(self.spans) - different + abs(self.total - sent)


def faulty(hook: str, misbehave: Callable[..., Any], *, is_async: bool) -> Any:
    """An exporter with every hook, of which one calls ``misbehave``."""
    namespace: dict[str, Any] = {"hookimpl": hookimpl, "misbehave": misbehave, "inspect": inspect}
    lines = ["class Faulty:", "    interval = 0.2", "    context = None", "    held = ()", "    delivered = frozenset()"]
    for name, arguments in _ARGUMENTS.items():
        prefix = "async def" if is_async and name == hook else "def"
        lines += ["    @hookimpl", f"    {prefix} {name}(self{', ' if arguments else ''}{arguments}):"]
        if name == "start":
            lines += ["        type(self).context = context"]
        if name == "ambient_context" and hook in AMBIENT:
            lines += ["        return Ambient(self)"]
        if name == hook:
            # What becomes of a chunk that the hook itself empties is the hook's affair: it takes what it gets first.
            lines += _BOOKKEEPING.get(name, []) if name == "export_spans" else []
            given = ", ".join(f"{each}={each}" for each in arguments.split(", ") if each)
            lines += [f"        answer = misbehave(self, {given})"]
            if is_async:
                lines += ["        answer = (await answer) if inspect.isawaitable(answer) else answer"]
            lines += ["        if answer is not None:", "            return answer"]
        lines += [*_BOOKKEEPING.get(name, []), "        return None"]

    class Ambient:
        def __init__(self, exporter: Any) -> None:
            self._exporter = exporter

        def _does(self, name: str) -> Any:
            return misbehave(self._exporter) if name == hook else None

        def current(self) -> Any:
            return self._does("current")

        def attach(self, context: Any, own_io: bool) -> Any:
            return self._does("attach")

        def detach(self, token: Any) -> Any:
            return self._does("detach")

    namespace["Ambient"] = Ambient
    exec("\n".join(lines), namespace)  # hooks with exactly the arguments and the kind of the case
    return namespace["Faulty"]()


class _Quiet(logging.Handler):
    """Takes records as an application does: it formats each of them, and counts their size."""

    written = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:  # noqa: BLE001  # logging.Handler.handleError does the same
            return
        type(self).written += len(text)


def _account_holds(report: Report) -> bool:
    return all(
        part.spans_recorded == part.spans_exported + sum(part.spans_dropped.values()) + part.spans_unknown + part.spans_pending
        for part in report.exporters
    )


def _lies(report: Report, exporter: Any, *, records: bool) -> list[str]:
    """What a report says of the faulty exporter that is not so. ``records``: its hook records spans while it delivers."""
    part = next((part for part in report.exporters if part.name == "faulty"), None)
    if exporter is None:
        # It could not be made, so nothing was delivered to it.
        return ["said that everything was delivered to an exporter that was not made"] if report else []
    if part is None:
        return ["says nothing of it"]
    lies = []
    if part.spans_exported > len(exporter.delivered):
        lies.append(f"{part.spans_exported} spans exported, of which {len(exporter.delivered)} were delivered")
    # Those that were lost before, or that may have arrived and are not sent again, are counted and no longer delivered.
    wanted = part.spans_recorded - sum(part.spans_dropped.values()) - part.spans_unknown
    # What is recorded during a flush may be delivered by the next one.
    wanted -= part.spans_pending if records else 0
    if part.delivered and wanted > len(exporter.delivered):
        lies.append(f"all delivered, but only {len(exporter.delivered)} of {wanted} were")
    return lies


async def run(hook: str, what: str, kind: str) -> dict[str, Any]:
    exporter: Any = None
    telemetry = Telemetry(config=_config(hook), traces_per_second="all")
    healthy = [Healthy(), Healthy()]
    for number, each in enumerate(healthy):
        telemetry.register_exporter(each, name=f"healthy{number}")
    if hook not in MAKING:
        misbehave = MISBEHAVIOURS[what]

        def call(exporter: Any, **arguments: Any) -> Any:
            return misbehave(Surroundings(telemetry, type(exporter).context, arguments))

        exporter = faulty(hook, call, is_async=kind == "async")
        telemetry.register_exporter(exporter, name="faulty")
    failed = sent = 0
    slowest = 0.0
    lies: list[str] = []
    begun = time.monotonic()
    store = open_store("memory:", telemetry=telemetry)
    async with store:
        await telemetry.start()
        opened = time.monotonic() - begun
        telemetry.gauge("temperature").set(1)
        reports: list[tuple[Report, float, float]] = []
        for _ in range(2):
            for _ in range(25):
                begun = time.monotonic()
                try:
                    async with asyncio.timeout(2):
                        await store.execute(Note(stream=StreamId(f"note-{sent}")))
                except BaseException as error:  # any error at all is what the case looks for
                    failed += 1
                    if not isinstance(error, Exception):
                        raise
                sent += 1
                slowest = max(slowest, time.monotonic() - begun)
                await asyncio.sleep(0.005)
            begun = time.monotonic()
            reports.append((await telemetry.flush(FLUSH), time.monotonic() - begun, FLUSH))
            lies += _lies(reports[-1][0], exporter, records=what == "records")
    begun = time.monotonic()
    reports.append((await telemetry.shutdown(SHUTDOWN), time.monotonic() - begun, SHUTDOWN))
    lies += _lies(reports[-1][0], exporter, records=what == "records")
    own = [part for report, _, _ in reports for part in report.exporters if part.name.startswith("healthy")]
    # A hook that shuts the whole telemetry down does what any code of the application may do.
    told_to_stop = what == "shuts the telemetry down"
    loss = (
        0
        if told_to_stop
        else sum(abs(len(set(each.spans)) - sent) + abs(len(each.spans) - len(set(each.spans))) for each in healthy)
    )
    loss += 0 if told_to_stop else sum(abs(each.total - sent) for each in healthy)
    return {
        "commands_failed": failed,
        "slowest_command": round(slowest, 3),
        "siblings_loss": loss,
        "siblings_not_delivered": 0 if told_to_stop else sum(not part.delivered for part in own),
        "opened_after": round(opened, 2),
        "deadlines_missed": sum(took > limit + NOISE for _, took, limit in reports) + (opened > 2.5),
        "took": [round(took, 2) for _, took, _ in reports],
        "false_reports": lies,
        "account": all(_account_holds(report) for report, _, _ in reports),
        "says_delivered": [bool(report) for report, _, _ in reports],
        "states": {part.name: part.state for part in reports[-1][0].exporters},
        "log_bytes": _Quiet.written,
    }


def _config(hook: str) -> dict[str, Any]:
    quick = {"span_interval": 0.05, "backoff": 0.05, "max_backoff": 0.2, "export_timeout": 0.5}
    pipelines = {name: {"pipeline": quick} for name in ("healthy0", "healthy1", "faulty")}
    enabled = ["faulty"] if hook in MAKING else []
    return {"exporters": {"enabled": enabled, **pipelines}}


def main() -> None:
    hook, what, kind = sys.argv[1:]
    logging.getLogger().addHandler(_Quiet())
    found = asyncio.run(run(hook, what, kind))
    gc.collect()
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # The plugin of the cases "import" and "constructor" is a module of its own, found by its metadata.
    sys.path.insert(0, str(Path(__file__).parent / "plugin"))
    main()
