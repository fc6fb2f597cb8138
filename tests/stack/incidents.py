"""Faults, injected into a running stack: each has a set of alerts that must fire, and a runbook page that must mend it.

``python -m tests.stack fire [INCIDENT ...]`` runs them, each in a new stack, and prints incidents, alerts and seconds.
"""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from eventcore.stores.postgres.schema import lock_key
from examples.observability import rules
from examples.observability.alerts import ALERTS, FAILED
from tests.real_parts.waiting import wait_until
from tests.stack.native import ROOT, Stack

_SHELL: Final = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Incident:
    """One fault.

    Attributes:
        inject: makes the fault; at the end of its block, it takes away what is left of it.
        expected: the alerts that Alertmanager must send: those of them that are not held back by another.
        may: alerts that may fire as well, because the fault also causes what they mean, at some times or loads.
        runbook: the page whose commands mend it.
    """

    inject: Callable[[Stack], AbstractContextManager[None]]
    expected: frozenset[str]
    runbook: str
    may: frozenset[str] = frozenset()


@dataclass
class Outcome:
    """What happened: seconds from the fault to each alert, and from the remedy to its end.

    Attributes:
        fired: the alerts that were sent.
        held_back: those that fired, and were not sent because an alert that explains them fired, too.
        stayed: whether those that were expected went on until the remedy.
    """

    fired: dict[str, float]
    held_back: dict[str, float]
    stayed: bool
    resolved: dict[str, float]
    unexpected: set[str]
    missing: set[str]

    @property
    def as_expected(self) -> bool:
        return self.stayed and not self.unexpected and not self.missing


@contextmanager
def _postgres_killed(stack: Stack) -> Iterator[None]:
    stack.postgres.stop(signal.SIGQUIT)
    yield


def _holding(statement: str) -> Callable[[Stack], AbstractContextManager[None]]:
    """A session that has begun a transaction, and does not end it: a person at a console who went to lunch."""

    @contextmanager
    def hold(stack: Stack) -> Iterator[None]:
        holder = stack.hold(statement)
        try:
            yield
        finally:
            holder.kill()
            holder.wait()

    return hold


@contextmanager
def _events_cannot_be_applied(stack: Stack) -> Iterator[None]:
    stack.sql("ALTER TABLE balances ADD CONSTRAINT poison CHECK (position < 0) NOT VALID")
    wait_until(lambda: stack.sql("SELECT count(*) FROM eventcore.dead_letters") != "0", timeout=30, message="a dead letter")
    stack.sql("ALTER TABLE balances DROP CONSTRAINT poison")
    yield


@contextmanager
def _collector_killed(stack: Stack) -> Iterator[None]:
    stack.processes["collector"].stop(signal.SIGKILL)
    yield


@contextmanager
def _service_killed(stack: Stack) -> Iterator[None]:
    stack.processes["service"].stop(patience=10)
    yield


# What an outage has used up of the error budget is announced when its windows see it, also after the end of the outage.
_BUDGET: Final = frozenset({"EventcoreCommandsFailing", "EventcoreCommandsFailingSlowly"})
INCIDENTS: Final[dict[str, Incident]] = {
    "the service is killed": Incident(_service_killed, frozenset({"EventcoreServiceDown"}), "service-down"),
    "PostgreSQL is killed": Incident(_postgres_killed, frozenset({"EventcoreStoreAway"}), "store-away", _BUDGET),
    "the append lock is held": Incident(
        _holding(f"SELECT pg_advisory_xact_lock({lock_key('eventcore')})"),
        frozenset({"EventcoreAppendLockWaited", "EventcoreCommandsFailingFast"}),
        "append-lock",
        _BUDGET | {"EventcorePoolExhausted", "EventcoreBreakerOpen"},
    ),
    "the read model is locked": Incident(
        _holding("LOCK TABLE balances IN ACCESS EXCLUSIVE MODE"),
        frozenset({"EventcoreProjectionStuck"}),
        "projection-stuck",
        frozenset({"EventcoreProjectionBehind"}),
    ),
    "events cannot be applied": Incident(_events_cannot_be_applied, frozenset({"EventcoreDeadLettersWaiting"}), "dead-letters"),
    "the Collector is killed": Incident(
        _collector_killed, frozenset({"CollectorDown"}), "collector-down", frozenset({"EventcoreSpansDropped"})
    ),
}


RUNBOOKS: Final = tuple(sorted({alert.runbook for alert in ALERTS}))


def commands(page: str, title: str = "") -> list[str]:
    """The commands on a runbook page as they stand there, one a line; those below ``title``, or all."""
    text = (ROOT / rules.RUNBOOKS / f"{page}.md").read_text()
    section = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0] if title else text
    return [line for block in _SHELL.findall(section) for line in block.splitlines()]


def run(stack: Stack, incident: Incident, scale: float) -> Outcome:
    """Inject the fault, wait for its alerts, see that they stay, execute the runbook, and wait until they are gone."""
    limit = 60 + 2 * max(alert.wait_at(scale) for alert in ALERTS if alert.name in incident.expected)
    seen: dict[str, float] = {}
    held_back: dict[str, float] = {}
    begun = time.monotonic()

    def look() -> set[str]:
        found = stack.alerts()
        for name, state in found.items():
            (seen if state == "active" else held_back).setdefault(name, time.monotonic() - begun)
        return {name for name, state in found.items() if state == "active"}

    with incident.inject(stack):
        missing: set[str] = set()
        try:
            wait_until(lambda: incident.expected <= look(), timeout=limit, step=0.2)
        except AssertionError:
            missing = set(incident.expected - look())
        # Without the remedy nothing ends by itself.
        stayed = True
        until = time.monotonic() + 180 / scale
        while time.monotonic() < until and not missing:
            stayed &= incident.expected <= look()
            time.sleep(0.2)
        subprocess.run(
            ["/bin/sh", "-e", "-c", "\n".join(commands(incident.runbook, "Mend"))],
            env=stack.runbook_variables(),
            cwd=ROOT,
            timeout=90,
            check=True,
        )
        mended = time.monotonic()
        resolved: dict[str, float] = {}

        def all_gone() -> bool:
            active = look()
            for name in seen.keys() - active:
                resolved.setdefault(name, time.monotonic() - mended)
            return not active & incident.expected

        wait_until(all_gone, timeout=60 + 2400 / scale, message=incident.runbook, step=0.2)
    return Outcome(seen, held_back, stayed, resolved, set(seen) - incident.expected - incident.may, missing)


def fire(start: Callable[[], Stack], scale: float, names: Sequence[str], report: Callable[[str], None]) -> bool:
    """Run incidents, each in a stack of its own, print the matrix, and return whether everything was as expected."""
    good = True
    alerted: set[str] = set()
    for name in names or INCIDENTS:
        stack = start()
        try:
            wait_until(partial(_works, stack), timeout=120, message="commands are measured, and no alert is pending", step=0.5)
            outcome = run(stack, INCIDENTS[name], scale)
        except AssertionError as late:
            # The other incidents still say something.
            report(f"{name:26} NOT AS EXPECTED: {late}")
            good = False
            continue
        finally:
            stack.close()
        alerted |= outcome.fired.keys() | outcome.held_back.keys()
        good &= outcome.as_expected
        for alert, seconds in sorted(outcome.fired.items()):
            ended = f"ended {outcome.resolved[alert]:6.1f} s after the remedy" if alert in outcome.resolved else "not awaited"
            report(f"{name:26} {alert:30} fired after {seconds:6.1f} s, {ended}")
        for alert, seconds in sorted(outcome.held_back.items()):
            report(f"{name:26} {alert:30} fired after {seconds:6.1f} s, held back")
        if not outcome.as_expected:
            report(f"{name:26} NOT AS EXPECTED: {outcome}")
    report(f"alerts fired by a fault: {len(alerted)} of {len(ALERTS)}; not fired: {sorted({a.name for a in ALERTS} - alerted)}")
    return good


def _works(stack: Stack) -> bool:
    return bool(stack.query(f"{FAILED.format('5m')} == 0 or eventcore_commands_total > 50")) and not stack.query("ALERTS")
