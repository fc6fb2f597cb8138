"""What the documentation shows runs, and what it lists exists."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from eventcore import open_store
from eventcore.catalogue import CATALOGUE
from eventcore.exporting.configuration.settings import TelemetrySettings, load_configuration
from eventcore.exporting.delivery.settings import PipelineSettings
from eventcore.health import HealthSettings

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
DECISIONS = sorted(page for page in (ROOT / "docs/decisions").glob("*.md") if page.name != "README.md")
PARTS_OF_A_DECISION = ["Question", "Decision", "Measured", "Rejected", "What would change it", "In the code"]
SOURCES = [ROOT / f"{project}/src" for project in ("eventcore-core", "eventcore-otel", "eventcore-prometheus")]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in _BLOCK.findall(page.read_text()) if kind == language]


# Each program of docs/prometheus.md is an application of its own; test_prometheus_page.py runs them.
@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python") and page.name != "prometheus.md"], ids=lambda page: page.name
)
def test_the_python_of_a_page_runs_from_top_to_bottom(page: Path, tmp_path: Path) -> None:
    program = tmp_path / "page.py"
    program.write_text("\n".join(blocks(page, "python")))
    environment = {**os.environ, "EVENTCORE_EXPORTERS": "none", "PYTHONPATH": os.pathsep.join(sys.path)}
    if page.name == "exporters.md":
        del environment["EVENTCORE_EXPORTERS"]  # its example exports to an exporter of its own
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = {"README.md": "2 events up to position 3, 1 attempt\naccount-bob 1 MoneyDeposited(amount=7)\n"}
    if page.name in expected:
        assert done.stdout == expected[page.name]


def test_the_readmes_exporter_is_accepted_and_prints_what_was_counted(tmp_path: Path) -> None:
    source = next(text for text in blocks(ROOT / "README.md", "python") if "PrintExporter" in text)
    assert len(source.strip().splitlines()) <= 14
    program = tmp_path / "page.py"
    program.write_text(
        source
        + """
import asyncio
from eventcore import Telemetry

async def main():
    async with Telemetry(exporters="none") as telemetry:
        telemetry.register_exporter(PrintExporter("total"))
        telemetry.counter("orders.shipped", labels=("country",)).labels("FR").add(2)
        assert await telemetry.flush(5)
        await telemetry.unregister_exporter("print_exporter")

asyncio.run(main())
"""
    )
    done = subprocess.run([sys.executable, str(program)], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(done.stdout.splitlines()) == {"total orders.shipped {'country': 'FR'} 2"}


def test_the_tests_that_the_documentation_shows_pass(tmp_path: Path) -> None:
    (tmp_path / "test_page.py").write_text("\n".join(blocks(ROOT / "docs/testing.md", "python")))
    options = ["-q", "-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function", "-k", "not Store or chain"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", *options],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) >= 5


def test_the_failure_that_the_documentation_shows_is_that_of_its_example(tmp_path: Path) -> None:
    source = "\n".join(blocks(ROOT / "docs/testing.md", "python")).split("def test_nobody")[0]
    (tmp_path / "page.py").write_text(
        source.replace("MoneyDeposited(amount=7)", "MoneyDeposited(amount=8)")
        + "test_money_moves_from_one_account_to_the_other()"
    )
    done = subprocess.run([sys.executable, "page.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    [shown] = blocks(ROOT / "docs/testing.md", "text")
    assert done.stderr.endswith(shown)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_table_is_cut_by_an_empty_line(page: Path) -> None:
    """The first row after an empty line is that of the titles, and the line below it says so."""
    lines = ["", *_BLOCK.sub("", page.read_text()).splitlines(), ""]
    for before, row, below in zip(lines, lines[1:], lines[2:], strict=False):
        if row.startswith("|") and not before:
            assert re.fullmatch(r"[|:\s-]+", below), f"{page.name}: {row}"


def is_module_or_metric(name: str) -> bool:
    path = name.replace(".", "/")
    is_module = any((source / path).is_dir() or (source / f"{path}.py").is_file() for source in SOURCES)
    return is_module or name.removeprefix("eventcore.") in CATALOGUE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_modules_and_files_that_a_page_names_exist(page: Path) -> None:
    """`eventcore.events.codec` is a module or a metric, `tests/recording/` and `run.py` are files of the repository."""
    names_modules = page.parent.name == "decisions" or page.name == "architecture.md"
    for code in re.findall(r"`([^`\n]+)`", _BLOCK.sub("", page.read_text())):
        if names_modules and re.fullmatch(r"eventcore(_\w+)?(\.[a-z_]+)+", code):
            assert is_module_or_metric(code), f"{page.name} names {code}"
        elif re.fullmatch(r"(benchmarks|docs|examples|tests)/[\w./-]+", code):
            assert (ROOT / code).exists(), f"{page.name} names {code}"


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.name)
def test_a_decision_has_every_part_and_is_in_the_index(page: Path) -> None:
    text = page.read_text()
    parts = re.findall(r"^\*\*([A-Z][^*]+?)\.?\*\*", text, re.MULTILINE)
    assert [part for part in parts if part in PARTS_OF_A_DECISION] == PARTS_OF_A_DECISION
    title = text.splitlines()[0].removeprefix("# ")
    assert f"[{title}]({page.name})" in (page.parent / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_toml_of_a_page_is_toml(page: Path) -> None:
    for text in blocks(page, "toml"):
        assert tomllib.loads(text)


def test_no_page_installs_by_a_name_that_no_index_has() -> None:
    pages = [*PAGES, *ROOT.glob("eventcore-*/README.md"), *ROOT.glob("examples/*/README.md")]
    pages.append(ROOT / "eventcore-core/src/eventcore/cli/templates/README.md.txt")
    installs = [line for page in pages for line in page.read_text().splitlines() if "pip install" in line]
    assert len(installs) >= 8
    # A path has a slash before the name.
    assert [line for line in installs if re.search(r"(?<![/\w-])eventcore-(?:core|otel|prometheus)\b", line)] == []


def test_the_readmes_configuration_has_no_faults(tmp_path: Path) -> None:
    (text,) = blocks(ROOT / "README.md", "toml")
    (tmp_path / "eventcore.toml").write_text(text)
    configuration = load_configuration(environ={}, cwd=tmp_path)
    installed = {plugin.name for plugin in configuration.plugins}
    assert [fault for fault in configuration.faults if "prometheus" in installed] == []
    assert configuration.telemetry.service_name == "shop"


def test_the_table_of_metrics_is_the_catalogue() -> None:
    listed = {
        name: (kind.replace("-", "_").replace(" ", "_"), unit, tuple(re.findall(r"`([^`]+)`", labels)))
        for name, kind, unit, labels in re.findall(
            r"^\| `eventcore\.([\w.]+)` \| ([a-z -]+) \| `([^`]*)` \| ([^|]*) \|",
            (ROOT / "docs/telemetry.md").read_text(),
            re.MULTILINE,
        )
    }
    assert listed == {row.name: (row.kind, row.unit, row.labels) for row in CATALOGUE.values()}


def test_the_table_of_arguments_of_open_store_names_each_in_order() -> None:
    section = (ROOT / "docs/configuration.md").read_text().split("## Arguments of `open_store`")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(inspect.signature(open_store).parameters)


@pytest.mark.parametrize(
    ("heading", "settings"),
    [
        ("## `[telemetry]`", TelemetrySettings),
        ("## `[health]`", HealthSettings),
        ("## `[exporters.NAME.pipeline]`", PipelineSettings),
    ],
)
def test_the_tables_of_settings_name_every_key(heading: str, settings: type) -> None:
    section = (ROOT / "docs/configuration.md").read_text().split(heading)[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(settings.__annotations__)
