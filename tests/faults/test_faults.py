"""A tenth of the matrix of faults, chosen by a seed; ``run.py faults`` tries all of it."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import pytest

from tests.faults.__main__ import all_cases, run_all, some

# The day chooses, so that every case has its turn within weeks; the variable repeats a choice.
SEED = int(os.environ.get("EVENTCORE_FAULTS_SEED") or datetime.now(UTC).toordinal())

pytestmark = [pytest.mark.once, pytest.mark.timing, pytest.mark.timeout(600)]


def test_there_are_at_least_700_cases() -> None:
    assert len(all_cases()) >= 700


async def test_nothing_that_an_exporter_does_harms_commands_siblings_deadlines_or_reports() -> None:
    results = await run_all(some(all_cases(), 0.1, SEED), jobs=8)
    assert {str(result.case): (result.faults, result.details) for result in results if result.faults} == {}, f"seed {SEED}"
