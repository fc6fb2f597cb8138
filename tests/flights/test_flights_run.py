"""The example as a process of its own, with real data and a real collector."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.real_parts import PartMissing, find_part, wait_until
from tests.real_parts.postgres import PASSWORD, ForeignPostgres, PostgresServer

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.once


@pytest.fixture
def collector(real_data: Path) -> str:
    try:
        return str(find_part("rotel"))
    except PartMissing as missing:
        if os.environ.get("EVENTCORE_REQUIRE_COMPONENTS") == "1":
            pytest.fail(f"EVENTCORE_REQUIRE_COMPONENTS=1: {missing}", pytrace=False)
        pytest.skip(str(missing))


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "examples.flights", *arguments]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("EVENTCORE_", "OTEL_"))}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=50, check=False
    )


def checks(summary: dict[str, Any]) -> dict[str, bool]:
    return {check["name"]: check["passed"] for check in summary["checks"]}


def test_all_checks_pass_after_a_replay(collector: str) -> None:
    done = run("--seconds", "3", "--json", "--collector", collector)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout)
    assert summary["ok"]
    assert all(checks(summary).values())
    assert summary["commands"] == sum(summary["outcomes"].values()) > 100
    assert summary["outcomes"]["committed"] > 100
    assert sum(summary["rejections"].values()) == summary["outcomes"].get("rejected", 0)
    assert sum(summary["events"].values()) >= summary["outcomes"]["committed"]
    assert summary["series_scraped"] > 100
    otel = summary["exporters"]["otel"]
    assert otel["spans_recorded"] == otel["spans_exported"] + sum(otel["spans_dropped"].values())
    assert otel["spans_exported"] == summary["collector"]["spans"] > 0
    assert otel["points_exported"] > 0
    assert summary["collector"]["metrics"] > 0
    assert summary["projection"]["events applied"] == sum(summary["events"].values())
    assert summary["projection"]["lag"] == "0"


def test_without_a_collector_the_other_checks_pass(real_data: Path) -> None:
    done = run("--seconds", "1", "--json", "--no-collector", "--store", "memory:")
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout)
    assert list(summary["exporters"]) == ["prometheus"]
    assert summary["collector"] == "switched off by --no-collector"
    assert summary["events"]["FlightDeparted"] > 0


@pytest.mark.parametrize(
    ("program", "reason"),
    [("/nowhere/rotel-agent", "No such file or directory"), ("/bin/false", "ended at once with exit code 1")],
)
def test_a_collector_that_cannot_start_is_reported_and_left_out(real_data: Path, program: str, reason: str) -> None:
    done = run("--seconds", "1", "--store", "memory:", "--collector", program)
    assert done.returncode == 0, done.stdout + done.stderr
    assert reason in done.stdout


def test_a_store_that_has_events_is_continued(real_data: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'flights.db'}"
    first = json.loads(run("--seconds", "0.5", "--json", "--no-collector", "--store", url).stdout)
    again = json.loads(run("--seconds", "0.5", "--json", "--no-collector", "--store", url).stdout)
    assert first["ok"]
    assert again["ok"]
    assert again["rejections"]["already_departed"] > 0


def test_a_failed_check_is_named_and_sets_the_exit_code(real_data: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        done = run("--seconds", "0.5", "--no-collector", "--store", "memory:", "--metrics-port", str(port))
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"✗ metrics can be scraped: http://127.0.0.1:{port}/metrics" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_replay_in_order_with_its_summary(collector: str, tmp_path: Path, number: signal.Signals) -> None:
    log = tmp_path / "stderr.txt"
    arguments = command("--all", "--json", "--collector", collector)
    with (
        log.open("w") as errors,
        subprocess.Popen(arguments, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        wait_until(lambda: " committed | " in log.read_text() or process.poll() is not None, 30)
        process.send_signal(number)
        output, _ = process.communicate(timeout=40)
    assert process.returncode == 130, log.read_text()
    summary = json.loads(output)
    assert summary["interrupted"]
    assert summary["ok"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--seconds", "0"], "0 is not a number above 0"),
        (["--rate", "-1"], "-1 is not a number above 0"),
        (["--metrics-port", "70000"], "70000 is not a port"),
        (["--store", "mysql://here", "--no-collector"], "a store URL cannot begin with 'mysql:'"),
    ],
)
def test_wrong_arguments_are_refused_with_what_was_expected(real_data: Path, arguments: list[str], expected: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert expected in done.stderr
    assert done.stdout.count("Traceback") == done.stderr.count("Traceback") == 0


def test_the_replay_runs_on_postgresql_too(real_data: Path, newest_postgres: PostgresServer | ForeignPostgres) -> None:
    url = newest_postgres.url(newest_postgres.new_database())
    runs = [run("--seconds", "1", "--json", "--no-collector", "--store", url) for _ in range(2)]
    for done in runs:
        assert done.returncode == 0, done.stdout + done.stderr
        assert PASSWORD not in done.stdout + done.stderr
    summary = json.loads(runs[-1].stdout)
    assert summary["ok"]
    assert summary["rejections"]["already_departed"] > 0
    assert int(newest_postgres.sql("SELECT count(*) FROM flights_aircraft", url.rpartition("/")[2])) > 0
