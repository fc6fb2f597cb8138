"""The files of the stack: checked against their schemas, linted, and the same in containers and without."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from ruamel.yaml import YAML

from tests.stack.native import FILES, Stack

pytestmark = [pytest.mark.once, pytest.mark.timeout(60)]

_PROGRAMS: Final = Path(sys.executable).parent
COMPOSE: Final = YAML(typ="safe").load(FILES / "compose.yaml")


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=50, check=False)


def test_the_compose_file_fits_the_schema() -> None:
    done = _run(_PROGRAMS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", FILES / "compose.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_linter_finds_nothing_in_the_dockerfile_and_finds_a_planted_fault(tmp_path: Path) -> None:
    done = _run(_PROGRAMS / "hadolint", FILES / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")
    planted = tmp_path / "Dockerfile"
    planted.write_text((FILES / "Dockerfile").read_text().replace(":3.13.9-slim-bookworm", ":latest"))
    assert "DL3007" in _run(_PROGRAMS / "hadolint", planted).stdout


def test_every_image_is_pinned_by_version_and_the_service_does_not_run_as_root() -> None:
    images = [service["image"] for service in COMPOSE["services"].values() if "image" in service]
    assert len(images) == 6
    assert all(re.search(r":v?\d+\.\d+(\.\d+)?(-\w+)?$", image) for image in images), images
    dockerfile = (FILES / "Dockerfile").read_text()
    assert re.findall(r"^USER (.+)$", dockerfile, re.MULTILINE)[-1] == "10001"
    assert '"eventcore", "health"' in dockerfile


def test_every_file_that_compose_mounts_exists() -> None:
    mounted = [
        volume.split(":")[0]
        for service in COMPOSE["services"].values()
        for volume in service.get("volumes", ())
        if volume.startswith(".")
    ]
    assert len(mounted) >= 7
    assert [path for path in mounted if not (FILES / path).exists()] == []


def test_the_native_run_sets_the_variables_that_compose_sets() -> None:
    """A variable that a file uses and one of both ways does not set would make them differ in more than values."""
    files = ("collector.yaml", "prometheus.yml", "eventcore.toml")
    used = {name for file in files for name in re.findall(r"\$\{(?:env:)?([A-Z_]+)\}", (FILES / file).read_text())}
    composed = {name for service in COMPOSE["services"].values() for name in service.get("environment", ())}
    assert used <= composed
    assert used == set(Stack.VARIABLES)


def test_render_puts_variables_in_and_refuses_one_that_is_not_set(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_text('targets: ["${HOST}"]\nother: ${HOST}/${PATH_OF_IT}\n')
    command = ["/bin/sh", str(FILES / "render.sh"), str(source), str(target), "cat", str(target)]
    done = subprocess.run(
        command, env={"PATH": "/usr/bin:/bin", "HOST": "a:1", "PATH_OF_IT": "x/y"}, capture_output=True, text=True, check=True
    )
    assert done.stdout == 'targets: ["a:1"]\nother: a:1/x/y\n'
    refused = subprocess.run(command, env={"PATH": "/usr/bin:/bin", "HOST": "a:1"}, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "PATH_OF_IT" in refused.stderr
