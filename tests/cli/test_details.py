"""``eventcore plugins NAME`` and ``eventcore check NAME``, as processes, with plugins that are really installed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eventcore import open_store
from tests.cli.test_cli import Command
from tests.real_parts import free_ports

SECRET = "s3cr3t-of-the-test"


@pytest.fixture
def command(tmp_path: Path, plugin_site: Callable[[str], Path]) -> Command:
    return Command(tmp_path, plugin_site)


def by_key(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in rows}


def test_each_setting_is_shown_with_its_type_default_value_and_origin(command: Command) -> None:
    command.configure(
        f"""
        [exporters]
        enabled = ["journal"]
        [exporters.journal]
        level = "metrics"
        token = "{SECRET}"
        headers = {{ authorization = "${{JOURNAL_HEADER}}" }}
        [exporters.journal.pipeline]
        interval = 5
        """
    )
    command.environ.update(EVENTCORE_EXPORTERS__JOURNAL__PORT="9125", JOURNAL_HEADER=SECRET)
    code, answer = command.json("plugins", "journal")
    assert code == 0
    assert SECRET not in str(answer)
    file = str(command.directory / "eventcore.toml")
    rows = by_key(answer["settings"])
    assert rows["level"] == {
        "name": "level",
        "type": "one of 'all', 'metrics'",
        "default": "'all'",
        "value": "metrics",
        "source": file,
        "key": "exporters.journal.level",
    }
    assert (rows["token"]["value"], rows["token"]["type"]) == ("***", "str | None (secret)")
    assert rows["headers"]["value"] == {"authorization": "***"}
    assert rows["headers"]["key"] == "exporters.journal.headers"
    assert (rows["port"]["value"], rows["port"]["source"]) == ("9125", "environment")
    assert rows["port"]["key"] == "EVENTCORE_EXPORTERS__JOURNAL__PORT"
    assert (rows["compress"]["value"], rows["compress"]["source"], rows["compress"]["key"]) == ("False", "default", "")
    assert rows["backend"]["type"] == "Backend | None (only from code)"
    pipeline = by_key(answer["pipeline"])
    assert (pipeline["interval"]["value"], pipeline["interval"]["key"]) == (5.0, "exporters.journal.pipeline.interval")
    assert pipeline["max_age"]["type"] == "float > 0 and <= 86400"
    assert (answer["exporter"]["state"], answer["interval"], answer["temporality"]) == ("loaded", 5.0, "cumulative")
    assert re.search(r"^cycles +every 5 s$", command.run("plugins", "journal").stdout, re.MULTILINE)


def test_the_standard_variables_that_are_set_are_named_without_their_values(command: Command) -> None:
    command.environ.update(EVENTCORE_EXPORTERS="journal", OTEL_EXPORTER_OTLP_HEADERS=f"authorization={SECRET}")
    done = command.run("plugins", "journal")
    assert "OpenTelemetry's variables that are set: OTEL_EXPORTER_OTLP_HEADERS." in done.stdout
    assert SECRET not in done.stdout
    code, answer = command.json("plugins", "journal")
    assert (code, answer["standard_variables"]) == (0, ["OTEL_EXPORTER_OTLP_HEADERS"])


def test_people_see_the_same_without_a_secret(command: Command) -> None:
    command.configure(f'[exporters]\nenabled = ["journal"]\n[exporters.journal]\ntoken = "{SECRET}"')
    done = command.run("plugins", "journal")
    assert (done.returncode, done.stderr) == (0, "")
    assert SECRET not in done.stdout
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["exports", "counters,", "spans"] in lines
    assert ["port", "8125", "8125", "default", "int"] in lines
    assert next(line for line in lines if line[:1] == ["token"])[1] == "'***'"


def test_an_exporter_that_is_not_enabled_is_shown_and_a_disabled_one_is_not_imported(command: Command) -> None:
    command.configure('[exporters]\nenabled = []\ndisabled = ["journal"]')
    code, answer = command.json("plugins", "console")
    assert (code, answer["exporter"]["state"]) == (0, "not enabled")
    assert by_key(answer["settings"])["stream"]["type"] == "one of 'stderr', 'stdout'"
    code, answer = command.json("plugins", "journal")
    assert (code, answer["exporter"]["state"], answer["settings"]) == (0, "disabled", [])


def test_an_unknown_name_is_code_2_with_the_known_ones(command: Command) -> None:
    done = command.run("plugins", "jurnal")
    assert done.returncode == 2
    assert "there is no exporter 'jurnal'; did you mean 'journal'?; known are" in done.stderr
    command.environ["EVENTCORE_EXPORTERS"] = "journal"
    code, answer = command.json("check", "jurnal")
    assert (code, answer["ok"]) == (2, False)
    assert "did you mean 'journal'?" in answer["error"]


def test_a_plugin_that_is_broken_says_why_its_settings_are_not_known(command: Command) -> None:
    command.projects = ("broken",)
    command.environ["EVENTCORE_EXPORTERS"] = "import_error"
    code, answer = command.json("plugins", "import_error")
    assert (code, answer["exporter"]["state"], answer["settings"]) == (1, "failed", [])
    assert "No module named 'a_library_that_nobody_has'" in answer["settings_problem"]


def test_check_of_one_exporter_starts_no_other(command: Command) -> None:
    command.configure(
        '[exporters]\nenabled = ["journal", "second"]\n[exporters.journal]\npath = "first"\n'
        '[exporters.second]\nplugin = "journal"\npath = "second"'
    )
    code, answer = command.json("check", "second")
    assert code == 0
    assert [(one["name"], one["ok"]) for one in answer["exporters"]] == [("second", True)]
    assert "spans 1 = 1 exported" in answer["exporters"][0]["account"]
    assert not (command.directory / "first").exists()
    assert (command.directory / "second").exists()
    done = command.run("check", "second")
    assert "Account: second: delivered" in done.stdout


@pytest.mark.once
async def test_the_state_in_a_running_process_is_read_from_the_page_that_it_serves(command: Command, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    command.configure(f'[exporters]\nenabled = ["prometheus", "journal"]\n[exporters.prometheus]\nport = {port}')
    code, answer = await asyncio.to_thread(command.json, "plugins", "journal")
    assert (code, answer["live"]["state"]) == (0, None)
    assert f"http://127.0.0.1:{port}/metrics" in answer["live"]["problem"]
    config = {"exporters": {"prometheus": {"port": port}, "enabled": ["prometheus", "console"]}}
    async with open_store("memory:", config=config) as store:
        with store.telemetry.span("something"):
            pass
        assert await store.telemetry.flush(10)
        command.configure(f'[exporters]\nenabled = ["prometheus", "console"]\n[exporters.prometheus]\nport = {port}')
        code, answer = await asyncio.to_thread(command.json, "plugins", "console")
        done = await asyncio.to_thread(command.run, "plugins", "console")
    assert (code, answer["live"]["state"], answer["live"]["problem"]) == (0, "running", "")
    assert answer["live"]["spans"]["exported"] == answer["live"]["spans"]["recorded"] >= 0
    assert answer["live"]["cycles"]["metrics ok"] >= 1
    assert set(answer["live"]["last_success_ages"]) >= {"metrics"}
    assert f"running, as http://127.0.0.1:{port}/metrics says" in done.stdout
    assert "exported" in done.stdout
