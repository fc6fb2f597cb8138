"""On SQLite: several processes on one file are killed and paused while they write and project."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from time import monotonic

from eventcore import open_store
from tests.soak.chaos import faults_of_processes, inject
from tests.soak.crew import Crew
from tests.soak.database import of_sqlite
from tests.soak.logs import read_seen
from tests.soak.projector import OUTSIDE, TALLY
from tests.soak.proof import Findings, prove_outside
from tests.soak.staging import Load, all_caught_up, crew_of, prove, until


async def on_sqlite(directory: Path, load: Load) -> Findings:
    """Run the scenario and return its findings."""
    findings, choice = Findings(), random.Random(load.seed)
    crew = Crew(directory, choice)
    path = directory / "soak.db"
    url = f"sqlite:///{path}"
    async with open_store(url, exporters=[]):
        pass
    _query(path, TALLY)
    async with crew_of(crew, findings):
        crew.start("writer", min(4, load.writers), url)
        crew.start("projector", 2, url)
        crew.start("reader", 1, url)
        crew.start("scanner", 1, url)
        await until(lambda: _head(path) > 0, "the first event")
        await inject(faults_of_processes(crew, choice), choice, monotonic() + load.seconds, load.pause)
        await crew.end("writer")
        await all_caught_up(crew, lambda: _head(path), lambda: _query(path, "SELECT position FROM projections"), findings)
        await crew.end("reader", "scanner", "projector")
    stored, integrity = of_sqlite(path)
    if integrity != "ok":
        findings.violated(f"the file is damaged: {integrity}")
    prove(directory, stored, findings)
    prove_outside(read_seen(directory / OUTSIDE), stored.rows, findings)
    return findings


def _head(path: Path) -> int:
    return _query(path, "SELECT coalesce(max(position), 0) FROM events")[0]


def _query(path: Path, sql: str) -> list[int]:
    with closing(sqlite3.connect(path, timeout=20)) as database:
        return [number for (number,) in database.execute(sql)]
