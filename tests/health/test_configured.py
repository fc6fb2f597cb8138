"""The table ``[health]`` of the configuration: what readiness depends on, and the limits, without a line of code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from eventcore import EventStore, Telemetry, open_store
from eventcore.errors import ConfigurationError
from eventcore.health import HealthSettings


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], object]:
    """Write the file that is read from the working directory."""
    monkeypatch.chdir(tmp_path)
    return (tmp_path / "eventcore.toml").write_text


def settings_of(store: EventStore) -> HealthSettings:
    return store._monitor.settings


async def test_the_file_decides_what_readiness_depends_on(write: Callable[[str], object]) -> None:
    write('[health]\nessential = ["projection:balances"]\nprojections = ["balances"]\nkeep = 0\n')
    async with open_store("memory:", exporters="none") as store:
        health = await store.health()
        assert not health.ready
        assert health.checks["projection:balances"].essential
    write('[health]\nprojections = ["balances"]\n')
    async with open_store("memory:", exporters="none") as store:
        health = await store.health()
        assert (health.ready, health.status) == (True, "degraded")


def test_the_environment_counts_more_than_code_and_code_more_than_the_file(
    write: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    write("[health]\nlimit = 3\nkeep = 4.0\ninterval = 7\ndisk_free = 1\n")
    monkeypatch.setenv("EVENTCORE_HEALTH__KEEP", "0")
    monkeypatch.setenv("EVENTCORE_HEALTH__ESSENTIAL", '["exporter:*"]')
    # A variable of the command `eventcore health`, and no setting.
    monkeypatch.setenv("EVENTCORE_HEALTH_TOKEN", "abc")
    store = open_store("memory:", exporters="none", health=HealthSettings(limit=1.5, keep=9.0))
    assert settings_of(store) == HealthSettings(limit=1.5, keep=0.0, interval=7, disk_free=1, essential=("exporter:*",))


async def test_every_fault_of_the_table_is_listed_with_those_of_the_other_tables(
    write: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    write('[telemetry]\nverbosity = "loud"\n[health]\nlimt = 1\nlimit = -1\nessential = "projection:*"\ndisk_free = -5\n')
    monkeypatch.setenv("EVENTCORE_HEALTH__DEAD_AFTER", "-12.5")
    with pytest.raises(ConfigurationError) as refused:
        async with open_store("memory:", exporters="none"):
            pass
    listed = {fault.key: fault.problem for fault in refused.value.faults}
    assert listed.keys() == {
        *("telemetry.verbosity", "health.limt", "health.limit", "health.essential", "health.disk_free"),
        "EVENTCORE_HEALTH__DEAD_AFTER",
    }
    assert "did you mean 'limit'" in listed["health.limt"]
    assert listed["health.limit"] == "it is out of its range; expected seconds, more than 0"
    assert listed["health.disk_free"] == "it is out of its range; expected a number of bytes, 0 or more"
    assert "12.5" not in str(refused.value)


async def test_faults_are_logged_where_they_must_not_stop_the_service(
    write: Callable[[str], object], caplog: pytest.LogCaptureFixture
) -> None:
    write("[health]\nlimit = -1\nkeep = 0.5\n")
    async with open_store("memory:", exporters="none", on_config_error="log") as store:
        assert settings_of(store) == HealthSettings(keep=0.5)
    assert "health.limit" in caplog.text


async def test_stores_that_share_telemetry_take_its_table(write: Callable[[str], object]) -> None:
    write("[health]\nlimit = 3\n")
    async with Telemetry(exporters=[]) as telemetry:
        assert settings_of(open_store("memory:", telemetry=telemetry)).limit == 3
    write("[health]\nlimit = 0\n")
    async with Telemetry(exporters=[]) as telemetry:
        with pytest.raises(ConfigurationError, match=r"health\.limit"):
            open_store("memory:", telemetry=telemetry)


@pytest.mark.once
@pytest.mark.parametrize("command", ["check", "plugins"])
def test_the_command_line_shows_the_faults_of_the_table(write: Callable[[str], object], command: str) -> None:
    write("[health]\nkep = 1\n[exporters]\nenabled = []\n")
    done = subprocess.run([sys.executable, "-m", "eventcore", command, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert [fault["key"] for fault in json.loads(done.stdout)["faults"]] == ["health.kep"]
