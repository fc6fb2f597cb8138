"""Checks the dashboards against Grafana's schema, with npm and the compiler of TypeScript: ``python -m tests.stack schema``."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from examples.observability.dashboards import FOLDER

# The newest of both; a newer Grafana may refuse what an older one takes.
_PACKAGES: Final = ("@grafana/schema@13.2.3", "typescript@7.0.2")
_OPTIONS: Final = ("--noEmit", "--strict", "--skipLibCheck", "--moduleResolution", "bundler", "--module", "esnext")


def check(directory: Path) -> str:
    """What the compiler says of the dashboards; empty if they fit. ``directory`` keeps the packages.

    Raises:
        LookupError: npm is missing.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise LookupError("npm is missing: apt-get install npm")
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / "node_modules" / ".bin" / "tsc").exists():
        # Without a lock file: it would name the registry.
        options = ("--no-audit", "--no-fund", "--no-package-lock")
        subprocess.run([npm, "install", *options, *_PACKAGES], cwd=directory, check=True, timeout=300)
    for source in FOLDER.glob("*.json"):
        checked = f"export const dashboard = ({source.read_text()}) satisfies Partial<Dashboard>;"
        program = f'import type {{ Dashboard }} from "@grafana/schema";\n{checked}\n'
        (directory / f"{source.stem}.ts").write_text(program)
    files = [f"{source.stem}.ts" for source in FOLDER.glob("*.json")]
    command = [str(directory / "node_modules" / ".bin" / "tsc"), *_OPTIONS, *files]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300, check=False).stdout
