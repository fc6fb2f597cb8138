"""The incidents: together they fire every alert and move every panel, and each has a runbook page that mends it."""

from __future__ import annotations

from typing import Final

import pytest

from examples.observability.alerts import ALERTS, INHIBITIONS
from tests.stack.firing import RUNBOOKS, commands
from tests.stack.incidents import INCIDENTS, NOT_MEANT, Incident
from tests.stack.moving import PANELS, changed

pytestmark = pytest.mark.once

_NAMES: Final = {alert.name for alert in ALERTS}
_EACH: Final = pytest.mark.parametrize("incident", INCIDENTS.values(), ids=INCIDENTS)


def test_every_alert_must_be_fired_by_an_incident() -> None:
    must = [incident.expected | incident.held_back for incident in INCIDENTS.values()]
    assert frozenset().union(*must) == _NAMES


def test_every_runbook_is_executed_by_an_incident() -> None:
    assert {incident.runbook for incident in INCIDENTS.values()} == set(RUNBOOKS)


def test_every_panel_is_meant_for_a_fault_or_says_that_it_is_not() -> None:
    meant = {title for incident in INCIDENTS.values() for title in incident.moves}
    assert meant | NOT_MEANT == PANELS.keys()
    assert not meant & NOT_MEANT


@_EACH
def test_an_incident_names_alerts_that_exist_and_a_page_with_commands(incident: Incident) -> None:
    assert incident.expected
    assert incident.expected | incident.held_back | incident.may <= _NAMES
    assert not incident.expected & (incident.held_back | incident.may)
    assert commands(incident.runbook, "Mend")


@_EACH
def test_what_is_held_back_has_a_cause_among_what_is_sent(incident: Incident) -> None:
    for name in incident.held_back:
        assert any(each.cause in incident.expected and name in each.effects for each in INHIBITIONS), name


@pytest.mark.parametrize(
    ("way", "earlier", "later", "moves"),
    [
        ("rises", [1.0, 2.0], [2.0, 2.9], False),
        ("rises", [1.0, 2.0], [2.0, 3.1], True),
        ("rises", [0.0], [0.0, 0.001], True),
        ("rises", [0.0], [0.0], False),
        ("falls", [3.0, 2.0, 2.0], [3.0, 1.4], False),
        ("falls", [3.0, 2.0, 2.0], [3.0, 1.3], True),
        ("falls", [0.0, 2.0, 2.0], [0.0], True),
        ("falls", [0.0], [0.0], False),
    ],
)
def test_a_panel_moves_when_it_leaves_what_it_was_before(
    way: str, earlier: list[float], later: list[float], moves: bool
) -> None:
    assert changed(way, earlier, later) is moves
