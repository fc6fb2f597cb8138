"""How an exporter does in a running process: read from a page that the process serves, which has the metrics of exporters."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from typing import Final, final

import msgspec

from eventcore.cli.pulling import fetch_page, text_attribute
from eventcore.ground import in_background

_TIMEOUT: Final = 2.0
_LINE: Final = re.compile(r"^eventcore_exporters_(\w+)\{([^}]*)\} (\S+)", re.MULTILINE)
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_IN_PROCESS: Final = "telemetry.exporters() in the application has state, problem (the last error) and stats()"


@final
class LiveState(msgspec.Struct, frozen=True, kw_only=True):
    """What the page of a running process says of one exporter.

    Attributes:
        url: the page; ``None`` if no page of a running process could be read.
        state: the exporter's state there; ``None`` if it is not known.
        last_success_ages: seconds since the last cycle that succeeded, by signal.
        spans: counts of spans by outcome, with ``pending``.
        cycles: counts of cycles by signal and outcome, as ``metrics ok``.
        hidden: counts of instruments that it does not show, by the kind of the reason.
        hidden_names: the kind of the reason by the names of these instruments, where the page has them.
        problem: why nothing is known; empty if something is.
    """

    url: str | None = None
    state: str | None = None
    last_success_ages: dict[str, float] = {}
    spans: dict[str, int] = {}
    cycles: dict[str, int] = {}
    hidden: dict[str, int] = {}
    hidden_names: dict[str, str] = {}
    problem: str = ""

    def lines(self) -> Iterator[tuple[str, str]]:
        """Titles and texts, for people."""
        if self.state is None:
            yield "running", f"not known: {self.problem}"
            return
        yield "running", f"{self.state}, as {self.url} says"
        ages = [f"{age:.1f} s ago ({signal})" for signal, age in self.last_success_ages.items()]
        yield "last success", ", ".join(ages) or "none"
        yield "last error", f"in the application's log (logger eventcore.exporters); {_IN_PROCESS}"
        spans = [f"{count} {outcome}" for outcome, count in self.spans.items()]
        cycles = [f"{count} {name}" for name, count in self.cycles.items() if count]
        yield "account", f"spans: {', '.join(spans) or 'none'}; cycles: {', '.join(cycles) or 'none'}"
        if counts := [f"{count} {reason}" for reason, count in self.hidden.items() if count]:
            names = ", ".join(f"{name} ({reason})" for name, reason in sorted(self.hidden_names.items()))
            yield "not shown", f"instruments: {', '.join(counts)}{f': {names}' if names else ''}"


def find_live_state(name: str, exporters: Sequence[object]) -> LiveState:
    """Look for a running process at the addresses where the configured exporters listen, and read the state of ``name`` there.

    A page that is read counts as scraped by the process that serves it. This takes at most three seconds.
    """
    finding = in_background(lambda: _look(name, exporters), "eventcore-live-state")
    wait([finding], _TIMEOUT + 1.0)
    return finding.result() if finding.done() else LiveState(problem="no page was read in time")


def _look(name: str, exporters: Sequence[object]) -> LiveState:
    urls = [url for url in (text_attribute(exporter, "configured_url") for exporter in exporters) if url is not None]
    problems: list[str] = []
    deadline = time.monotonic() + _TIMEOUT
    for url in urls:
        page, failure = fetch_page(url, deadline)
        if page is None:
            problems.append(f"{url}: {failure}")
        elif (state := read_page(name, page, url)) is not None:
            return state
        else:
            problems.append(f"{url} shows no exporter {name!r}")
    hint = f"{_IN_PROCESS}; 'eventcore check {name}' sends a test"
    if not urls:
        return LiveState(problem=f"no enabled exporter serves a page on which a running process could show it; {hint}")
    return LiveState(problem=f"{'; '.join(problems)}; {hint}")


def read_page(name: str, page: str, url: str) -> LiveState | None:
    """What a page of metrics says of an exporter; ``None`` if it does not name it.

    >>> read_page("otel", 'eventcore_exporters_state{exporter="otel",state="failing"} 1', "http://127.0.0.1:9464/metrics").state
    'failing'
    """
    state = None
    ages: dict[str, float] = {}
    spans: dict[str, int] = {}
    cycles: dict[str, int] = {}
    hidden: dict[str, int] = {}
    hidden_names: dict[str, str] = {}
    for metric, text, number in _LINE.findall(page):
        labels = dict(_LABEL.findall(text))
        if labels.get("exporter") != name:
            continue
        value = float(number)
        if metric == "state" and value == 1:
            state = labels.get("state")
        elif metric.startswith("last_success_age"):
            ages[labels.get("signal", "")] = value
        elif metric == "spans_total":
            # By reason, for dropped ones.
            outcome = labels.get("outcome", "")
            spans[outcome] = spans.get(outcome, 0) + int(value)
        elif metric == "spans_pending":
            spans["pending"] = spans.get("pending", 0) + int(value)
        elif metric == "cycles_total":
            cycle = f"{labels.get('signal', '')} {labels.get('outcome', '')}"
            cycles[cycle] = cycles.get(cycle, 0) + int(value)
        elif metric == "instruments_hidden":
            hidden[labels.get("reason", "")] = int(value)
        elif metric == "instrument_hidden_info":
            hidden_names[labels.get("instrument", "")] = labels.get("reason", "")
    if state is None:
        return None
    return LiveState(
        url=url,
        state=state,
        last_success_ages=ages,
        spans=spans,
        cycles=cycles,
        hidden=hidden,
        hidden_names=hidden_names,
    )
