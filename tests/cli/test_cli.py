"""The command line, run as a process of its own against plugins that are really installed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from eventcore.version import __version__


class Command:
    """Runs ``eventcore`` in a directory of its own; ``done`` is the last run."""

    def __init__(self, directory: Path, plugin_site: Callable[[str], Path]) -> None:
        self.directory = directory
        self._plugin_site = plugin_site
        self.environ: dict[str, str] = {}
        self.projects: tuple[str, ...] = ("journal",)

    def configure(self, text: str) -> None:
        (self.directory / "eventcore.toml").write_text(text)

    def run(self, *arguments: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("EVENTCORE_", "OTEL_"))}
        path = [str(self._plugin_site(project)) for project in self.projects]
        return subprocess.run(
            [sys.executable, *(("-c", code) if code is not None else ("-m", "eventcore")), *arguments],
            cwd=self.directory,
            env={**inherited, "PYTHONPATH": os.pathsep.join([*path, *filter(None, sys.path)]), **self.environ},
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )

    def json(self, *arguments: str) -> tuple[int, Any]:
        done = self.run(*arguments, "--json")
        assert "Traceback" not in done.stderr
        return done.returncode, json.loads(done.stdout)


@pytest.fixture
def command(tmp_path: Path, plugin_site: Callable[[str], Path]) -> Command:
    return Command(tmp_path, plugin_site)


def by_name(answer: Any) -> dict[str, Any]:
    return {exporter["name"]: exporter for exporter in answer["exporters"]}


def test_plugins_shows_every_exporter_with_its_distribution_state_and_kinds(command: Command) -> None:
    command.configure('[exporters]\nenabled = ["journal", "second"]\n[exporters.second]\nplugin = "journal"')
    code, answer = command.json("plugins")
    assert code == 0
    assert {key: answer[key] for key in ("version", "faults", "exporters_off")} == {
        "version": 1,
        "faults": [],
        "exporters_off": False,
    }
    assert answer["files"] == [str(command.directory / "eventcore.toml")]
    rows = by_name(answer)
    assert rows["journal"] == {
        "name": "journal",
        "plugin": "journal",
        "distribution": "eventcore-journal",
        "version": "1.2.3",
        "state": "loaded",
        "reason": f"enabled in {command.directory / 'eventcore.toml'} (exporters.enabled)",
        "kinds": ["counters", "spans"],
        "install": None,
    }
    assert (rows["second"]["plugin"], rows["second"]["state"]) == ("journal", "loaded")
    assert (rows["console"]["distribution"], rows["console"]["state"]) == ("eventcore-core", "not enabled")


def test_plugins_prints_a_plain_table_when_nobody_looks(command: Command) -> None:
    command.environ["EVENTCORE_EXPORTERS"] = "journal"
    done = command.run("plugins")
    assert (done.returncode, done.stderr) == (0, "")
    title, row, *_ = done.stdout.splitlines()
    assert title.split() == ["exporter", "plugin", "distribution", "version", "state", "exports", "why"]
    assert row.split()[:6] == ["journal", "journal", "eventcore-journal", "1.2.3", "loaded", "counters,"]
    assert "\x1b" not in done.stdout


def test_plugins_imports_only_what_is_enabled(command: Command) -> None:
    code = (
        "import sys; from eventcore.cli import main; code = main(); "
        "print(code, 'eventcore_journal' in sys.modules, 'eventcore_page' in sys.modules)"
    )
    command.projects = ("journal", "page")
    command.configure('[exporters]\nenabled = ["journal", "page"]\ndisabled = ["journal"]')
    assert command.run("plugins", code=code).stdout.splitlines()[-1] == "0 False True"
    command.environ["EVENTCORE_EXPORTERS"] = "none"
    assert command.run("plugins", code=code).stdout.splitlines()[-1] == "0 False False"


def test_plugins_says_of_each_broken_plugin_why_it_failed(command: Command) -> None:
    expected = {
        "import_error": "ModuleNotFoundError: No module named 'a_library_that_nobody_has'",
        "leaves": "tried to end the process: SystemExit: 3",
        "missing_attribute": "AttributeError",
        "not_callable": "leads to a int; expected a class",
        "cannot_be_made": "ValueError: cannot be made",
        "leaves_when_made": "tried to end the process: SystemExit: 4",
        "misspelt": "there is no hook 'export_counter'; did you mean 'export_counters'?",
        "unmarked": "Unmarked.export_counters: it has the name of a hook, but not the marker",
        "wrong_signature": "there is no argument 'metrics'",
        "generator": "it is a generator",
        "gives_a_class": "it is the class RaisesEverywhere; expected an instance",
        "open_settings": "takes settings that no one can check",
        "untyped_settings": "'host' has no annotation",
    }
    command.projects = ("broken", "journal")
    command.environ["EVENTCORE_EXPORTERS"] = ",".join([*expected, "raises_everywhere", "journal"])
    code, answer = command.json("plugins")
    assert code == 1
    rows = by_name(answer)
    assert {name: rows[name]["state"] for name in expected} == dict.fromkeys(expected, "failed")
    assert {name: rows[name]["reason"] for name in expected if expected[name] not in rows[name]["reason"]} == {}
    # What breaks only when it runs is loaded, and a broken neighbour harms nobody.
    assert (rows["raises_everywhere"]["state"], rows["journal"]["state"]) == ("loaded", "loaded")
    assert rows["raises_everywhere"]["kinds"] == ["counters", "spans"]
    assert rows["Bad-Name"]["state"] == "not enabled"


def test_faults_of_the_configuration_are_all_shown_with_code_2(command: Command) -> None:
    command.configure('[telemetri]\n[exporters]\nenabled = ["journal"]\n[exporters.journal]\nport = "x"\ntoken = ["s3cret"]')
    command.environ["EVENTCORE_EXPORTERS__JOURNAL__COMPRESS"] = "perhaps"
    for name in ("plugins", "check"):
        done = command.run(name)
        assert done.returncode == 2
        assert "The configuration has 4 faults:" in done.stdout
        assert f"{command.directory / 'eventcore.toml'}: exporters.journal.port: expected int, got 'x'" in done.stdout
        assert "EVENTCORE_EXPORTERS__JOURNAL__COMPRESS: expected bool (true or false)" in done.stdout
        assert "s3cret" not in done.stdout + done.stderr
        code, answer = command.json(name)
        assert code == 2
        assert [fault["key"] for fault in answer["faults"]] == [
            "telemetri",
            "exporters.journal.port",
            "exporters.journal.token",
            "EVENTCORE_EXPORTERS__JOURNAL__COMPRESS",
        ]


def test_two_plugins_of_one_name_are_both_shown(command: Command) -> None:
    command.projects = ("journal", "twin")
    command.environ["EVENTCORE_EXPORTERS"] = "journal"
    code, answer = command.json("plugins")
    assert code == 2
    rows = {row["distribution"]: row for row in answer["exporters"] if row["name"] == "journal"}
    assert {name: row["state"] for name, row in rows.items()} == {"eventcore-journal": "failed", "acme-journal": "failed"}
    assert rows["acme-journal"]["reason"] == "eventcore-journal 1.2.3 brings a plugin of this name too"
    command.environ["EVENTCORE_EXPORTERS"] = "none"
    code, answer = command.json("plugins")
    assert code == 0
    assert [row["state"] for row in answer["exporters"] if row["name"] == "journal"] == ["not enabled", "not enabled"]


def test_check_sends_a_metric_and_a_span_that_really_arrive(command: Command) -> None:
    file = command.directory / "journal"
    command.configure(
        # A cycle of the interval beside the one of the command would send the same total once more.
        f'[telemetry]\ntraces_per_second = 0\n[exporters]\nenabled = ["journal"]\n[exporters.journal]\npath = "{file}"\n'
        "[exporters.journal.pipeline]\ninterval = 3600"
    )
    code, answer = command.json("check")
    assert code == 0
    assert answer["ok"]
    assert by_name(answer)["journal"] == {
        "name": "journal",
        "plugin": "journal",
        "ok": True,
        "state": "running",
        "sent": ["metric", "span"],
        "url": None,
        "message": "metric and span delivered",
        "account": "journal: delivered (running); spans 1 = 1 exported + 0 dropped + 0 unknown + 0 pending; "
        "points 1 exported, 0 rejected",
    }
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines.count({"hook": "export_counters", "name": "eventcore.check", "labels": {}, "value": 1}) == 1
    assert {"hook": "export_spans", "name": "eventcore check"} in lines


def test_check_says_why_something_did_not_arrive(command: Command) -> None:
    command.projects = ("broken", "journal")
    command.environ["EVENTCORE_EXPORTERS"] = "raises_everywhere,refuses,refuses_spans,import_error,journal"
    code, answer = command.json("check", "--timeout", "1.5")
    assert code == 1
    rows = by_name(answer)
    assert {name: row["ok"] for name, row in rows.items()} == {
        "raises_everywhere": False,
        "refuses": False,
        "refuses_spans": False,
        "import_error": False,
        "journal": True,
    }
    assert "start is broken" in rows["raises_everywhere"]["message"]
    assert "quota used up" in rows["refuses"]["message"]
    assert "too many spans" in rows["refuses_spans"]["message"]
    assert "a_library_that_nobody_has" in rows["import_error"]["message"]


def test_check_ends_in_time_when_an_exporter_hangs(command: Command) -> None:
    command.projects = ("broken", "journal")
    command.environ["EVENTCORE_EXPORTERS"] = "hangs,journal"
    began = time.monotonic()
    code, answer = command.json("check", "--timeout", "1")
    assert time.monotonic() - began < 10
    assert code == 1
    rows = by_name(answer)
    assert (rows["hangs"]["ok"], rows["journal"]["ok"]) == (False, True)
    assert "not delivered" in rows["hangs"]["message"]


def test_check_has_nothing_to_do_without_exporters(command: Command) -> None:
    command.configure("[exporters]\nenabled = []")
    done = command.run("check")
    assert (done.returncode, "No exporter is enabled." in done.stdout) == (0, True)
    command.environ["EVENTCORE_EXPORTERS"] = "none"
    done = command.run("check")
    assert (done.returncode, "EVENTCORE_EXPORTERS=none: nothing is exported." in done.stdout) == (0, True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def pulled(command: Command, port: int | None) -> None:
    command.projects = ("page",)
    setting = f"[exporters.page]\nport = {port}" if port is not None else ""
    command.configure(f'[exporters]\nenabled = ["page"]\n{setting}')


def test_check_fetches_the_page_of_an_exporter_that_is_scraped(command: Command) -> None:
    port = free_port()
    pulled(command, port)
    code, answer = command.json("check")
    assert by_name(answer)["page"]["message"] == f"the address was free, and http://127.0.0.1:{port}/ showed the test metric"
    assert (code, by_name(answer)["page"]["url"]) == (0, f"http://127.0.0.1:{port}/")


@pytest.fixture
def stranger() -> Any:
    """A server of somebody else; ``page`` is what it shows."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(server.page.encode())  # type: ignore[attr-defined]  # set below

        def log_message(self, *arguments: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_check_is_content_when_another_process_serves_these_metrics_already(command: Command, stranger: Any) -> None:
    stranger.page = "# TYPE eventcore_info gauge\neventcore_info 1\n"
    pulled(command, stranger.server_port)
    code, answer = command.json("check", "--timeout", "2")
    assert "already serves metrics of eventcore, from another process" in by_name(answer)["page"]["message"]
    assert code == 0


def test_check_says_that_somebody_else_has_the_address(command: Command, stranger: Any) -> None:
    stranger.page = "It works!"
    pulled(command, stranger.server_port)
    code, answer = command.json("check", "--timeout", "2")
    assert "is served by something that shows no metrics of eventcore" in by_name(answer)["page"]["message"]
    assert "ddress already in use" in by_name(answer)["page"]["message"]
    assert code == 1


def test_check_knows_an_exporter_that_is_scraped_and_listens_nowhere(command: Command) -> None:
    pulled(command, None)
    code, answer = command.json("check")
    assert by_name(answer)["page"]["message"] == "it made its page; it listens nowhere itself"
    assert code == 0


def test_what_plugins_print_does_not_disturb_the_answer(command: Command) -> None:
    command.environ |= {"EVENTCORE_EXPORTERS": "console", "EVENTCORE_EXPORTERS__CONSOLE__STREAM": "stdout"}
    done = command.run("check", "--json")
    assert json.loads(done.stdout)["ok"]
    assert "eventcore.check" in done.stderr


def test_another_file_can_be_named(command: Command) -> None:
    (command.directory / "other.toml").write_text('[exporters]\nenabled = ["journal"]')
    command.configure("[exporters]\nenabled = []")
    code, answer = command.json("plugins", "--config", "other.toml")
    assert (code, by_name(answer)["journal"]["state"]) == (0, "loaded")


@pytest.mark.parametrize(
    "arguments", [[], ["plugin"], ["check", "--timeout", "0"], ["check", "--timeout", "soon"], ["plugins", "x", "y"]]
)
def test_a_wrong_command_line_is_code_2_with_a_hint(command: Command, arguments: list[str]) -> None:
    done = command.run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: eventcore")


def test_help_documents_the_exit_codes_and_version_names_the_distribution(command: Command) -> None:
    for arguments in (["--help"], ["plugins", "--help"], ["check", "--help"]):
        assert "standard variables of OpenTelemetry\n(OTEL_SERVICE_NAME" in command.run(*arguments).stdout
        assert "exit codes:\n  0  all is well\n  1  an exporter" in command.run(*arguments).stdout
    for name in ("plugins", "check", "migrate"):
        assert '\nJSON (--json):\n  {"version": 1,' in command.run(name, "--help").stdout
    assert command.run("--version").stdout == f"eventcore-core {__version__}\n"


def test_a_reader_that_goes_away_is_no_error(command: Command) -> None:
    code = (
        "import os, sys; from eventcore.cli import main; read, write = os.pipe(); os.close(read); os.dup2(write, 1); "
        "code = main(['plugins']); sys.exit(code)"
    )
    command.environ["EVENTCORE_EXPORTERS"] = "none"
    done = command.run(code=code)
    assert (done.returncode, done.stderr) == (1, "")
