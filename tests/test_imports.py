"""Who imports whom, and what importing eventcore loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HEAVY = (
    "asyncpg",
    "eventcore_otel",
    "eventcore_prometheus",
    "google",
    "grpc",
    "http.server",
    "opentelemetry",
    "prometheus_client",
    "pytest",
)


def loaded_by(statement: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{statement}\nimport sys\nprint(*sys.modules, sep='\\n')"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines())


@pytest.mark.parametrize(
    "module", ["eventcore", "eventcore.exporting", "eventcore.serving", "eventcore.cli", "eventcore.testing"]
)
def test_importing_core_loads_none_of_the_heavy_packages(module: str) -> None:
    loaded = loaded_by(f"import {module}")
    assert module in loaded
    assert loaded.isdisjoint(HEAVY)


def test_importing_eventcore_loads_nothing_that_no_first_command_needs() -> None:
    # Each of them takes a millisecond or more; together, they took as long as asyncio.
    unneeded = {"difflib", "email", "eventcore.serving", "eventcore.health.page", "importlib.metadata", "importlib.resources"}
    unneeded |= {"lzma", "shutil", "sqlite3", "tempfile", "tomllib", "zipfile"}
    unneeded |= {"dataclasses", "hashlib", "pickle", "eventcore.logs.console", "eventcore.projections.runner"}
    unneeded |= {"eventcore.exporting.delivery.pipeline", "eventcore.exporting.process", "eventcore.exporting.registration"}
    assert loaded_by("import eventcore").isdisjoint(unneeded)
    assert loaded_by("from eventcore.health import HealthListener, asgi_app") >= {"eventcore.serving", "eventcore.health.asgi"}
    assert "sqlite3" in loaded_by("from eventcore.stores import SqliteBackend")


def test_the_tests_of_stores_say_what_they_need_where_it_is_missing() -> None:
    missing = "import sys\nsys.modules['pytest_asyncio'] = None\n"
    statement = f"{missing}from eventcore.testing import given\nfrom eventcore.testing import StoreContract"
    done = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr.splitlines()[-1] == (
        "ImportError: eventcore.testing.StoreContract needs pytest and pytest-asyncio: pip install pytest pytest-asyncio"
    )


@pytest.mark.parametrize("plugin", ["eventcore_otel", "eventcore_prometheus"])
def test_a_plugin_imports_nothing_of_core_but_exporting_and_serving(plugin: str) -> None:
    if (spec := find_spec(plugin)) is None or spec.origin is None:
        pytest.skip(f"{plugin} is not installed")
    sources = sorted(Path(spec.origin).parent.rglob("*.py"))
    imported = {name for source in sources for name in imports_of(source) if name.split(".")[0] == "eventcore"}
    assert "eventcore.exporting" in imported
    assert imported <= {"eventcore.exporting", "eventcore.serving"}


def test_every_kind_of_import_is_seen(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text("import a.b\nfrom c import d\nif True:\n    def f():\n        from e.g import h\n        import i as j\n")
    assert imports_of(source) == {"a.b", "c", "e.g", "i"}


def imports_of(source: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}: relative import"
            found.add(node.module or "")
    return found
