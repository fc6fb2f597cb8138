"""Forked processes: the child of a process with an open store neither uses nor harms what belongs to its parent."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.real_parts.postgres import PostgresServer

ROOT = Path(__file__).parents[2]


async def run(program: str, url: str) -> list[str]:
    """The lines that a program of ``tests.store.forking`` prints."""
    command = (sys.executable, "-W", "error", "-m", "tests.store.forking", program, url)
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE, stderr=PIPE)
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    # On a busy machine, a new process may be slow enough for its store to say so.
    said = [line for line in errors.decode().splitlines() if not line.startswith("eventcore.loop: ")]
    assert (process.returncode, said) == (0, [])
    return output.decode().splitlines()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        file: str = request.getfixturevalue("sqlite_url")
        return file
    server: PostgresServer = request.getfixturevalue("newest_postgres")
    return server.url(server.new_database())


async def test_a_child_is_refused_by_its_parents_open_store_and_opens_its_own(url: str) -> None:
    assert await run("open_before", url) == ["child StoreForked", "child 2", "exit 0", "parent 52"]


async def test_a_store_that_was_only_made_before_the_fork_can_be_opened_on_both_sides(url: str) -> None:
    assert await run("made_before", url) == ["child 1", "exit 0", "parent 2"]


async def test_a_process_of_multiprocessing_that_is_forked_is_refused_too(url: str) -> None:
    assert await run("fork", url) == ["child StoreForked", "child 2", "exit 0", "parent 52"]


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
async def test_processes_that_inherit_nothing_open_their_own_store(url: str, method: str) -> None:
    assert await run(method, url) == ["child nothing inherited", "child 2", "exit 0", "parent 52"]
