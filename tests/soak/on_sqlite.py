"""On SQLite: several processes on one file, killed and held while they write and project."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from time import monotonic

from eventcore import open_store
from tests.soak.chaos import blows_to_processes, torment
from tests.soak.crew import Crew
from tests.soak.database import of_sqlite
from tests.soak.logs import read_seen
from tests.soak.projector import OUTSIDE, TALLY
from tests.soak.proof import Findings, prove_outside
from tests.soak.staging import Load, all_caught_up, crew_of, prove, until

__all__ = ["on_sqlite"]


async def on_sqlite(directory: Path, load: Load) -> Findings:
    """Run it, and prove it."""
    findings, choice = Findings(), random.Random(load.seed)
    crew = Crew(directory, choice)
    path = directory / "soak.db"
    url = f"sqlite:///{path}"
    async with open_store(url, exporters=[]):
        pass
    _ask(path, TALLY)
    async with crew_of(crew, findings):
        crew.hire("writer", min(4, load.writers), url)
        crew.hire("projector", 2, url)
        crew.hire("reader", 1, url)
        crew.hire("scanner", 1, url)
        await until(lambda: _head(path) > 0, "the first event")
        await torment(blows_to_processes(crew, choice), choice, monotonic() + load.seconds, load.pause)
        await crew.end("writer")
        await all_caught_up(crew, lambda: _head(path), lambda: _ask(path, "SELECT position FROM projections"), findings)
        await crew.end("reader", "scanner", "projector")
    standing, integrity = of_sqlite(path)
    if integrity != "ok":
        findings.violated(f"the file is damaged: {integrity}")
    prove(directory, standing, findings)
    prove_outside(read_seen(directory / OUTSIDE), standing.rows, findings)
    return findings


def _head(path: Path) -> int:
    return _ask(path, "SELECT coalesce(max(position), 0) FROM events")[0]


def _ask(path: Path, sql: str) -> list[int]:
    with closing(sqlite3.connect(path, timeout=20)) as database:
        return [number for (number,) in database.execute(sql)]
