"""What is seen of an incident, each with the time that it took; what was expected and not seen is kept, too."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from tests.incidents.staging import Service
from tests.real_parts import ReceivedSpan


class Row(msgspec.Struct):
    """An incident as its operators saw it.

    Attributes:
        incident: its name.
        health: what a probe said, after how many seconds, with its reasons.
        logged: records of the log.
        metrics: what Prometheus sees, before and after.
        traces: a trace id with the names of its spans, or what marks them.
        missing: what was expected and did not come.
        seconds: how long the incident took.
    """

    incident: str
    health: list[str] = []
    logged: list[dict[str, Any]] = []
    metrics: list[str] = []
    traces: list[str] = []
    missing: list[str] = []
    seconds: float = 0.0


class Watch:
    """Looks for what is expected of an incident, and notes in ``row`` what came of it.

    Args:
        incident: its name.
        service: what it happens to.
    """

    def __init__(self, incident: str, service: Service) -> None:
        self.row = Row(incident)
        self.service = service
        self.begun = time.monotonic()
        self._old_records = len(service.records())
        self._before: dict[str, float | None] = {}

    def begin(self) -> None:
        """The incident begins now: times count from here, and older records are not of it."""
        self.begun = time.monotonic()
        self._old_records = len(self.service.records())

    def health(self, path: str, status: int, within: float, reason: str = "", check: str = "") -> None:
        """Probe ``path`` until it answers ``status``, with ``reason`` among the reasons of ``check``, or of any check."""
        last = ""

        def seen() -> bool:
            nonlocal last
            got, body = self.service.probe(path, 3.0 if path == "healthz" else 1.0)
            reasons = _reasons(body)
            shown = {name: text for name, text in reasons.items() if check in ("", name)}
            text = "; ".join(f"{name}: {why}" for name, why in shown.items()) or _state(body)
            last = f"{self._after():5.1f} s  /{path} {got or 'no answer'}: {text}"
            return got == status and reason in text

        self._note(seen, within, lambda: last, self.row.health, f"/{path} {status} {check} {reason!r}")

    def always(self, path: str, status: int, within: float) -> None:
        """Probe ``path`` for ``within`` seconds; each answer has to be ``status``."""
        answers: list[int] = []
        end = time.monotonic() + within
        while time.monotonic() < end:
            answers.append(self.service.probe(path)[0])
            time.sleep(0.1)
        others = [answer for answer in answers if answer != status]
        self.row.health.append(
            f"{self._after():5.1f} s  /{path} {status} in {len(answers) - len(others)} of {len(answers)} probes"
        )
        if others:
            self.row.missing.append(f"/{path} {status} always; also {sorted(set(others))}")

    def logged(
        self, text: str, within: float = 5.0, level: str = "", count: int | None = None, traced: bool = False
    ) -> dict[str, Any] | None:
        """Look for a record whose message contains ``text``: of this level, this often, or with the id of its trace."""
        found: list[dict[str, Any]] = []

        def seen() -> bool:
            nonlocal found
            records = self.service.records()[self._old_records :]
            found = [record for record in records if text in record.get("message", "")]
            found = [
                record for record in found if level in ("", record.get("level")) and (not traced or record.get("trace_id"))
            ]
            return bool(found) and count in (None, len(found))

        if _until(seen, within):
            self.row.logged.append(found[0])
            return found[0]
        self.row.missing.append(f"log: {level} {text!r}{'' if count is None else f' {count} times'}; {len(found)} found")
        return None

    def before(self, *series: str) -> None:
        """Note metrics before the incident."""
        for each in series:
            self._before[each] = self.service.metric(each)

    def moved(self, series: str | tuple[str, ...], expected: Callable[[float], bool], within: float = 15.0) -> None:
        """Scrape a metric until ``expected`` is true of it, and note what it was before. Of several, their difference."""
        names = (series,) if isinstance(series, str) else series
        shown_name = " - ".join(names)
        value: float | None = None

        def seen() -> bool:
            nonlocal value
            value = self.service.metric(*names)
            return value is not None and expected(value)

        def shown() -> str:
            return f"{shown_name} {_number(self._before.get(shown_name))} -> {_number(value)} after {self._after():.1f} s"

        self._note(seen, within, shown, self.row.metrics, f"metric {shown_name}")

    def rose(self, series: str, within: float = 15.0) -> None:
        """Scrape a metric until it is greater than before the incident, when an absent one was 0."""
        before = self._before[series] or 0
        self.moved(series, lambda value: value > before, within)

    def traced(self, what: str, span: Callable[[ReceivedSpan], bool], within: float = 15.0) -> ReceivedSpan | None:
        """Look at the collector for a span, and note its trace: its id, its spans, and the span's attributes."""
        found: list[ReceivedSpan] = []

        def seen() -> bool:
            nonlocal found
            found = [each for each in self.service.spans() if span(each)]
            return bool(found)

        if not _until(seen, within, 0.3):
            self.row.missing.append(f"trace: {what}")
            return None
        # The newest: of an incident that goes on, it has the whole effect.
        chosen = found[-1]
        names = sorted({each.name for each in self.service.spans() if each.trace_id == chosen.trace_id})
        marks = [f"event {event.name}" for event in chosen.events] + (
            [f"status {chosen.status}"] if chosen.status != "unset" else []
        )
        phases = [f"{name}={value}" for name, value in chosen.attributes.items() if "phase" in name or name.endswith("outcome")]
        took = (chosen.end_time_ns - chosen.start_time_ns) / 1e9
        self.row.traces.append(f"{chosen.trace_id} [{', '.join(names)}]: {chosen.name} {took:.3f} s {' '.join(marks + phases)}")
        return chosen

    def expect(self, what: str, true: object) -> None:
        """Note something that is expected and not seen by the others."""
        if not true:
            self.row.missing.append(what)

    def _note(self, seen: Callable[[], bool], within: float, shown: Callable[[], str], rows: list[str], expected: str) -> None:
        if _until(seen, within):
            rows.append(shown())
        else:
            self.row.missing.append(f"{expected} within {within:g} s; last: {shown().strip()}")

    def _after(self) -> float:
        return time.monotonic() - self.begun


def _until(seen: Callable[[], bool], within: float, step: float = 0.1) -> bool:
    end = time.monotonic() + within
    while not (true := seen()) and time.monotonic() < end:
        time.sleep(step)
    return true


def _reasons(body: dict[str, Any]) -> dict[str, str]:
    return {name: check["reason"] for name, check in body.get("checks", {}).items() if check["reason"]}


def _state(body: dict[str, Any]) -> str:
    """In a word, what a probe without reasons said."""
    return "draining" if body.get("draining") else str(body.get("status") or body.get("error", ""))


def _number(value: float | None) -> str:
    return "absent" if value is None else f"{value:g}"
