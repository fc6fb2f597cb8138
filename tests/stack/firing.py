"""Runs incidents: injects the fault, waits for its alerts in Alertmanager, executes the runbook, and prints what happened."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec

from examples.observability import rules
from examples.observability.alerts import ALERTS, FAILED
from tests.real_parts.server import ServerFailed
from tests.real_parts.waiting import wait_until
from tests.stack.incidents import INCIDENTS, Incident
from tests.stack.moving import moved
from tests.stack.native import ROOT, Stack

RUNBOOKS: Final = tuple(sorted({alert.runbook for alert in ALERTS}))
_SHELL: Final = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# Seconds before the fault that panels are compared with.
_QUIET: Final = 10.0


class Outcome(msgspec.Struct):
    """What happened: seconds from the fault to each alert, and from the remedy to its end.

    Attributes:
        fired: the alerts that were sent.
        held_back: those that fired, and were not sent because an alert that explains them fired, too.
        resolved: the end of those that were expected, and of others that ended earlier.
        stayed: whether those that were expected went on until the remedy.
        unexpected, missing: what should not have been sent; what should have been, or should have been held back.
        panels: whether each panel that is meant for the fault moved.
        problem: what else went wrong.
    """

    incident: str
    fired: dict[str, float] = {}
    held_back: dict[str, float] = {}
    resolved: dict[str, float] = {}
    stayed: bool = True
    unexpected: list[str] = []
    missing: list[str] = []
    panels: dict[str, bool] = {}
    problem: str = ""

    @property
    def as_expected(self) -> bool:
        return self.stayed and not (self.unexpected or self.missing or self.problem) and all(self.panels.values())


def commands(page: str, title: str = "") -> list[str]:
    """The commands on a runbook page as they stand there, one a line; those below ``title``, or all."""
    text = (ROOT / rules.RUNBOOKS / f"{page}.md").read_text()
    section = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0] if title else text
    return [line for block in _SHELL.findall(section) for line in block.splitlines()]


def _play(stack: Stack, incident: Incident, scale: float, outcome: Outcome) -> None:
    """Inject the fault, wait for its alerts, see that they stay, execute the runbook, and wait until they are gone."""
    limit = 90 + 2 * max(alert.wait_at(scale) for alert in ALERTS if alert.name in incident.expected)
    wall, begun = time.time(), time.monotonic()

    def look() -> dict[str, str]:
        found = stack.alerts()
        for name, state in found.items():
            first = outcome.fired if state == "active" else outcome.held_back
            first.setdefault(name, time.monotonic() - begun)
        return found

    def complete() -> bool:
        found = look()
        return incident.expected <= _active(found) and incident.held_back <= found.keys()

    with incident.fault(stack):
        try:
            wait_until(complete, timeout=limit, step=0.2)
        except AssertionError:
            found = look()
            outcome.missing = sorted((incident.expected - _active(found)) | (incident.held_back - found.keys()))
        # Without the remedy nothing ends by itself.
        until = time.monotonic() + 180 / scale
        while time.monotonic() < until and not outcome.missing:
            outcome.stayed &= incident.expected <= _active(look())
            time.sleep(0.2)
        mend = "\n".join(commands(incident.runbook, "Mend"))
        subprocess.run(
            ["/bin/sh", "-e", "-c", mend],
            env=stack.runbook_variables(),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            timeout=120,
            check=True,
        )
        mended = time.monotonic()

        def all_gone() -> bool:
            # One that is held back meanwhile has not ended.
            found = look()
            for name in outcome.fired.keys() - found.keys():
                outcome.resolved.setdefault(name, time.monotonic() - mended)
            return not found.keys() & incident.expected

        wait_until(
            all_gone, timeout=90 + incident.ends_within / scale, message=f"{sorted(incident.expected)} have ended", step=0.2
        )
    may = incident.may
    if any("$RESTART_SERVICE" in line or "$UNDO_RELEASE" in line for line in commands(incident.runbook, "Mend")):
        # A busy machine starts it in more than the time after which it counts as down.
        may |= {"EventcoreServiceDown"}
    outcome.unexpected = sorted(outcome.fired.keys() - incident.expected - may)
    outcome.panels = moved(stack, incident.moves, wall - _QUIET, wall, time.time())


def _active(found: dict[str, str]) -> set[str]:
    return {name for name, state in found.items() if state == "active"}


def _works(stack: Stack, expected: frozenset[str]) -> bool:
    """Commands are executed, no alert fires, and none of the expected ones is about to."""
    # There is no share of failures before the first one.
    measured = f"sum(rate(eventcore_commands_total[10s])) > 5 unless on() ({FAILED.format('5m')} > 0)"
    return bool(stack.query(measured)) and not stack.query(
        f'ALERTS{{alertstate="firing"}} or ALERTS{{alertname=~"{"|".join(expected)}"}}'
    )


def _one(start: Callable[[float], Stack], name: str, scale: float) -> Outcome:
    incident, outcome = INCIDENTS[name], Outcome(name)
    scale *= incident.faster
    try:
        stack = start(scale)
    except ServerFailed as problem:
        outcome.problem = f"{problem}"
        return outcome
    try:
        well = partial(wait_until, partial(_works, stack, incident.expected), timeout=240, step=0.5)
        well(message="commands are executed, and no alert fires")
        with incident.before(stack):
            well(message="it is well before the fault")
            time.sleep(_QUIET)
            _play(stack, incident, scale, outcome)
    except (AssertionError, ServerFailed, subprocess.SubprocessError) as problem:
        # The other incidents still say something.
        outcome.problem = f"{problem}"
    finally:
        stack.close()
    return outcome


def fire(
    start: Callable[[float], Stack], scale: float, names: Sequence[str], report: Callable[[str], None], *, as_json: bool = False
) -> bool:
    """Run incidents, each in a stack of its own, print the matrix, and return whether everything was as expected.

    Args:
        start: makes a stack whose times are so many times shorter.
        scale: how many times shorter those of an incident are, unless it has its own.
        names: the incidents; none for all.
        report: is called with each line.
        as_json: report an object of JSON for each incident, and no matrix.
    """
    outcomes = []
    for name in names or INCIDENTS:
        outcomes.append(_one(start, name, scale))
        if as_json:
            report(msgspec.json.encode(outcomes[-1]).decode())
        else:
            for line in _shown(outcomes[-1]):
                report(line)
    if not as_json:
        for line in _matrix(outcomes):
            report(line)
    return all(outcome.as_expected for outcome in outcomes)


def _shown(outcome: Outcome) -> list[str]:
    lines = [f"== {outcome.incident}: {'as expected' if outcome.as_expected else 'NOT AS EXPECTED'}"]
    for alert, seconds in sorted(outcome.fired.items()):
        ended = (
            f"ended {outcome.resolved[alert]:6.1f} s after the remedy"
            if alert in outcome.resolved
            else "its end was not awaited"
        )
        lines.append(f"   {alert:30} sent after {seconds:6.1f} s, {ended}")
    lines += [f"   {alert:30} held back after {seconds:6.1f} s" for alert, seconds in sorted(outcome.held_back.items())]
    lines += [f"   {'moved' if did else 'DID NOT MOVE'}: {panel}" for panel, did in outcome.panels.items()]
    for what, found in (("not sent", outcome.missing), ("sent and not expected", outcome.unexpected)):
        lines += [f"   {what}: {', '.join(found)}"] if found else []
    lines += [] if outcome.stayed else ["   it ended before the remedy"]
    lines += [f"   {outcome.problem}"] if outcome.problem else []
    return lines


def _matrix(outcomes: Sequence[Outcome]) -> list[str]:
    """A row for each incident, a column for each alert; below, what the letters mean and what has been fired and moved."""
    letters = {alert.name: chr(ord("a") + number) for number, alert in enumerate(ALERTS)}
    lines = ["", "seconds from the fault until each alert was sent; in brackets: held back by another alert"]
    lines.append(f"{'':22}" + "".join(f"{letter:>6}" for letter in letters.values()))
    for outcome in outcomes:
        cells = [
            f"{outcome.fired[name]:.0f}"
            if name in outcome.fired
            else f"({outcome.held_back[name]:.0f})"
            if name in outcome.held_back
            else "."
            for name in letters
        ]
        lines.append(f"{outcome.incident:22}" + "".join(f"{cell:>6}" for cell in cells))
    lines += [f"  {letter}  {name}" for name, letter in letters.items()]
    alerted = {name for outcome in outcomes for name in (*outcome.fired, *outcome.held_back)}
    lines.append(f"alerts fired by a fault: {len(alerted)} of {len(ALERTS)}; not fired: {sorted(letters.keys() - alerted)}")
    panels = [(panel, did) for outcome in outcomes for panel, did in outcome.panels.items()]
    still = sorted(panel for panel, did in panels if not did)
    lines.append(f"panels that moved: {len(panels) - len(still)} of {len(panels)} meant to; still: {still}")
    return lines
