"""Plugin distributions that are really built and installed, each into a directory of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECTS = Path(__file__).parent


@pytest.fixture(scope="session")
def plugin_site(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Build and install one of the projects beside this file; the answer is the directory to put on the path."""
    sites: dict[str, Path] = {}

    def install(project: str) -> Path:
        if project not in sites:
            site = tmp_path_factory.mktemp(f"site-{project}")
            command = [
                sys.executable,
                "-m",
                "pip",
                "--disable-pip-version-check",
                "install",
                "--quiet",
                "--no-deps",
                "--no-index",
            ]
            command += ["--no-build-isolation", "--target", str(site), str(PROJECTS / project)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 0, done.stderr
            sites[project] = site
        return sites[project]

    return install
