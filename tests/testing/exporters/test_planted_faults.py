"""Each planted fault is caught by the check that is meant for it. Here a sixth of them, chosen by the day."""

from __future__ import annotations

import time

import pytest

from eventcore.testing import ExporterContract
from tests.testing.exporters.planted import PLANTED, run

_PARTS = 6


@pytest.mark.once
@pytest.mark.timeout(120)
def test_the_check_that_is_meant_catches_the_fault() -> None:
    chosen = list(PLANTED)[int(time.time() // 86_400) % _PARTS :: _PARTS]
    failed = run(chosen)
    assert {name: PLANTED[name][1] for name in chosen if PLANTED[name][1] not in failed[name]} == {}


def test_at_least_thirty_faults_are_planted_and_every_check_that_is_meant_exists() -> None:
    assert len(PLANTED) >= 30
    assert [check for _, check in PLANTED.values() if not hasattr(ExporterContract, check)] == []
