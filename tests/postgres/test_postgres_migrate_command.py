"""``eventcore migrate``, and stores that may not do it themselves."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from time import monotonic

import msgspec
import pytest

from eventcore import open_store
from eventcore.cli import main
from eventcore.errors import CommandTimeout, IncompatibleStore
from eventcore.stores import SCHEMA_VERSION
from tests.postgres.backends import Server
from tests.postgres.proxy import Proxy
from tests.real_parts.postgres import PASSWORD
from tests.store.bank import Deposit, account


async def run(tmp_path: Path, *arguments: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "eventcore", "migrate", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=tmp_path,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 40)
    return process.returncode, output.decode(), errors.decode()


async def test_a_store_that_may_not_migrate_opens_once_the_command_has(server: Server, tmp_path: Path) -> None:
    url = server.url(server.new_database())
    with pytest.raises(IncompatibleStore, match="eventcore migrate"):
        async with open_store(url, exporters=[], migrate=False):
            pass
    for _ in range(2):
        code, output, errors = await run(tmp_path, url)
        assert (code, errors) == (0, "")
        assert f"has version {SCHEMA_VERSION}" in output
    async with open_store(url, exporters=[], migrate=False) as store:
        assert (await store.execute(Deposit(account=account(1)))).position == 1


async def test_the_command_says_what_is_wrong_without_the_password(server: Server, tmp_path: Path) -> None:
    code, output, errors = await run(tmp_path, "--json", server.url("nowhere"))
    assert (code, errors) == (1, "")
    answer = msgspec.json.decode(output)
    assert (answer["ok"], list(answer)) == (False, ["version", "ok", "error"])
    assert "has no such database" in answer["error"]
    code, output, errors = await run(tmp_path, f"postgresql://u:{PASSWORD}@host")
    assert (code, output) == (2, "")
    assert errors.startswith("eventcore: the store URL names no database")
    assert PASSWORD not in errors


def test_a_package_that_is_missing_is_code_2_as_in_every_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # What the import system does where the package is not installed: importing it raises ImportError.
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    assert main(["migrate", "postgresql://localhost/shop"]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.partition(":")[0]) == ("", "eventcore")
    assert "needs asyncpg: pip install" in printed.err


async def test_a_command_on_a_database_without_a_store_names_the_command_that_makes_one(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    url = server.url(server.new_database())
    for arguments in (["health", url], ["projections", "list", url]):
        assert await asyncio.to_thread(main, arguments) in (1, 2)
        said = capsys.readouterr().err
        assert "run 'eventcore migrate'" in said
        assert "migrate=False" not in said


async def test_the_timeout_of_a_store_holds_for_commands_that_have_none(url: str) -> None:
    async with Proxy.before(url) as proxy, open_store(f"{proxy.url}?timeout=1", exporters=[], timeout=0.2) as store:
        await store.execute(Deposit(account=account(1)), timeout=5)
        proxy.silent = True
        begun = monotonic()
        with pytest.raises(CommandTimeout, match=r"within 0\.2 s"):
            await store.execute(Deposit(account=account(1)))
        assert monotonic() - begun < 3
        proxy.silent = False
