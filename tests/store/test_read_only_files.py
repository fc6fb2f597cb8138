"""A store in a directory that the process may not write, such as a backup or an image, can be read."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest

from eventcore import open_store
from tests.store.bank import Deposit, account

READER: Final = """
import asyncio, os, sys
import eventcore.stores.sqlite.url
from urllib.parse import quote
from eventcore import Command, Event, StreamId, open_store
from eventcore.errors import StoreUnavailable
class Deposited(Event):
    event_type = "bank.Deposited"
    amount: int
class Deposit(Command[None]):
    account: StreamId
    def handle(self, state):
        yield self.account, Deposited(amount=1)
async def main():
    # Imports everything that a store needs: another user may not read the modules.
    async with open_store("memory:", exporters="none"):
        pass
    if os.geteuid() == 0:
        # Root may write everything, so it becomes another user.
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    async with open_store("sqlite:///" + quote(sys.argv[1]), exporters="none") as store:
        print([event.data.amount async for event in store.read_all()], await store.projections())
        try:
            await store.execute(Deposit(account=StreamId("account-2")))
        except StoreUnavailable as error:
            print(error)
asyncio.run(main())
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that other users may read; ``tmp_path`` is its owner's only."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path
        path.chmod(0o755)


def read(path: Path) -> tuple[str, str]:
    done = subprocess.run([sys.executable, "-c", READER, str(path)], capture_output=True, text=True, timeout=30, check=False)
    return done.stdout, done.stderr


async def fill(path: Path) -> None:
    async with open_store(f"sqlite:///{quote(str(path))}", exporters=[]) as store:
        for amount in (1, 2, 3):
            await store.execute(Deposit(account=account(1), amount=amount))


@pytest.mark.parametrize("name", ["bank.db", "what? 100% #1.db"])
def test_a_file_in_a_read_only_directory_can_be_read_and_not_written(directory: Path, name: str) -> None:
    path = directory / name
    asyncio.run(fill(path))
    path.chmod(0o444)
    directory.chmod(0o555)
    output, errors = read(path)
    assert errors == ""
    assert output.startswith("[1, 2, 3] []\n")
    assert "cannot be written: check the permissions of the file and its directory" in output
    assert [one.name for one in directory.iterdir()] == [name]


async def test_a_file_that_another_process_is_writing_can_be_read(directory: Path) -> None:
    path = directory / "bank.db"
    async with open_store(f"sqlite:///{quote(str(path))}", exporters=[]) as store:
        await store.execute(Deposit(account=account(1), amount=7))
        output, errors = read(path)
    assert errors == ""
    assert output.startswith("[7] []\n")


def test_a_read_only_file_of_an_older_version_says_what_to_do(directory: Path) -> None:
    path = directory / "bank.db"
    asyncio.run(fill(path))
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 2")
    path.chmod(0o444)
    directory.chmod(0o555)
    _, errors = read(path)
    assert "IncompatibleStore" in errors
    assert "cannot be written to migrate it: allow that, or migrate a copy" in errors
