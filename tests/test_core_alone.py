"""Core without optional packages: no exporter's distribution, and none of the packages that only an extra installs.

The tests block these packages, so that they prove the same wherever they run. The session ``core_alone`` runs them where the
packages are not installed, which shows too that core's own dependencies are complete.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

OPTIONAL = ("asyncpg", "eventcore_otel", "eventcore_prometheus", "google", "grpc", "opentelemetry", "prometheus_client", "rich")
BLOCKED = f"import sys\nfor name in {OPTIONAL!r}:\n    sys.modules[name] = None\n"
# The only package that imports an optional one (asyncpg); it is loaded when a PostgreSQL store is opened.
POSTGRES = "eventcore.stores.postgres."

IMPORT_EVERYTHING = f"""
import pkgutil
from importlib import import_module
import eventcore
for module in pkgutil.walk_packages(eventcore.__path__, "eventcore."):
    if module.name != "eventcore.__main__" and not module.name.startswith({POSTGRES!r}):
        import_module(module.name)
        print(module.name)
"""

USE_A_STORE = """
import asyncio
from eventcore import Command, Event, StreamId, open_store

class Deposited(Event):
    amount: int

class Deposit(Command[int]):
    account: StreamId
    amount: int

    def initial_state(self):
        return 0

    def apply(self, balance, event):
        return balance + event.data.amount

    def handle(self, balance):
        yield self.account, Deposited(amount=self.amount)

async def main(url):
    account = StreamId("account-1")
    async with open_store(url) as store:
        for amount in (1, 2, 3):
            await store.execute(Deposit(account=account, amount=amount))
        print("amounts", [event.data.amount async for event in store.read(account)])
        assert await store.telemetry.flush(10)

asyncio.run(main(sys.argv[1]))
"""


def run_blocked(program: str, *arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCKED + program, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_module_outside_the_postgresql_store_imports_without_optional_packages(tmp_path: Path) -> None:
    done = run_blocked(IMPORT_EVERYTHING, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"eventcore.store", "eventcore.cli", "eventcore.exporting.console"} <= set(done.stdout.splitlines())


@pytest.mark.parametrize("url", ["memory:", "sqlite:///bank.db"])
def test_a_store_executes_reads_and_exports_to_the_console(url: str, tmp_path: Path) -> None:
    done = run_blocked(USE_A_STORE, url, cwd=tmp_path, EVENTCORE_EXPORTERS="console")
    assert done.returncode == 0, done.stderr
    assert "amounts [1, 2, 3]" in done.stdout.splitlines()
    assert "eventcore.commands.total" in done.stdout + done.stderr


def test_a_postgresql_store_says_what_to_install(tmp_path: Path) -> None:
    done = run_blocked(USE_A_STORE, "postgresql://user@localhost/bank", cwd=tmp_path, EVENTCORE_EXPORTERS="none")
    assert done.returncode == 1
    assert "pip install 'eventcore-core[postgres]'" in done.stderr.splitlines()[-1]
