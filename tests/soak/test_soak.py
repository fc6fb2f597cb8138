"""The short form of the soak test, a few seconds a scenario; ``python -m tests.soak`` is the long form."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from tests.soak.scenarios import SCENARIOS, USUAL
from tests.soak.staging import Load

_LOAD: Final = Load(seconds=3, seed=7, writers=3, pause=0.6)


@pytest.mark.once
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", [*USUAL, "takeovers"])
async def test_everything_holds_however_much_is_killed(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if name != "sqlite":
        # Skips the test if PostgreSQL is missing, or fails it if EVENTCORE_REQUIRE_COMPONENTS is set.
        request.getfixturevalue("start_postgres")
    scenario, _ = SCENARIOS[name]
    findings = await scenario(tmp_path, _LOAD)
    assert findings.violations == []
    assert findings.counts["acknowledged"] > 50
    assert findings.counts["decisions checked"] > 50
    if name == "takeovers":
        assert sum(count for what, count in findings.counts.items() if re.fullmatch(r"takeovers after [^:]+", what)) > 0
    else:
        assert findings.counts["events seen by readers"] > 100
