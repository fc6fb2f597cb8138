"""The whole way of an author: a new exporter is written, built, installed, found, checked and tested, in under a minute."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.once,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not (shutil.which("mypy") and shutil.which("ruff")), reason="`run.py authors` installs mypy and ruff"),
]


def run(*command: str | Path, cwd: Path, site: Path | None = None) -> str:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("EVENTCORE_", "PYTEST_"))}
    path = [*([str(site)] if site is not None else []), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**inherited, "PYTHONPATH": os.pathsep.join(path)}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def processor_time() -> float:
    """Seconds of all processes that this one has started and waited for, and of those that they have."""
    times = os.times()
    return times.children_user + times.children_system


def test_a_new_exporter_is_built_installed_checked_and_green(tmp_path: Path) -> None:
    begun, used = time.monotonic(), processor_time()
    python = sys.executable
    run(python, "-m", "eventcore", "new-exporter", "my_backend", cwd=tmp_path)
    project, site = tmp_path / "eventcore-my-backend", tmp_path / "site"
    pip = (python, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", ".", cwd=project)
    [wheel] = (project / "dist").iterdir()
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel, cwd=tmp_path)
    shown = run(python, "-m", "eventcore", "plugins", "my_backend", cwd=tmp_path, site=site)
    assert "of eventcore-my-backend 0.1.0" in shown
    assert "state         loaded" in shown
    run("ruff", "check", cwd=project)
    run("ruff", "format", "--check", cwd=project)
    assert "Success" in run("mypy", cwd=project)
    # The tests import the installed package, and not the source beside them.
    shutil.rmtree(project / "src")
    tested = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=project, site=site)
    assert " passed" in tested
    assert " failed" not in tested
    # On a machine that has nothing else to do, less than a minute passes. Beside other tests, only this tells it.
    used = processor_time() - used
    print(f"{time.monotonic() - begun:.0f} s, of them {used:.0f} s of processor time")
    assert used < 60
