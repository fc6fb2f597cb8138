"""Runs the contract on faulty exporters."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path

from tests.testing.exporters.planted.table import PLANTED


def run(names: Iterable[str], *, whole: bool = False) -> dict[str, set[str]]:
    """Run the checks that are meant, or the whole contract, on faulty exporters. Returns the failed checks of each."""
    root = Path(__file__).parents[4]
    file = str(Path(__file__).with_name("checks.py").relative_to(root))
    chosen = [f"{file}::Test{name}" + ("" if whole else f"::{PLANTED[name][1]}") for name in names]
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.xml"
        options = ["-q", "-p", "no:cacheprovider", *(["-n", "2"] if whole else []), "--timeout", "30", f"--junit-xml={results}"]
        subprocess.run(
            [sys.executable, "-m", "pytest", *options, *chosen],
            cwd=root,
            stdout=subprocess.DEVNULL,
            check=False,
            timeout=3600,
        )
        failed: dict[str, set[str]] = {}
        for case in ET.parse(results).getroot().iter("testcase"):  # pytest has just written it
            checks = failed.setdefault(case.attrib["classname"].rpartition(".Test")[2], set())
            if case.find("failure") is not None or case.find("error") is not None:
                checks.add(case.attrib["name"].partition("[")[0])
    return failed
