"""Opening: who may, on which servers and databases, and what is said to those who may not."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from eventcore.errors import AccessDenied, IncompatibleStore, InvalidStoreUrl, StoreError, StoreUnavailable
from eventcore.stores import SCHEMA_VERSION
from eventcore.stores.postgres.schema import for_schema
from eventcore.stores.urls import backend_from_url
from tests.postgres.backends import OpenBackend, Server, everything, request
from tests.real_parts import free_ports
from tests.real_parts.postgres import PASSWORD, PostgresServer

ROOT = Path(__file__).parents[2]
OPEN = """
import asyncio, sys
from eventcore.stores.urls import backend_from_url
async def main():
    backend = backend_from_url(sys.argv[1])
    sys.stdin.readline()
    await backend.open()
    await backend.close(5)
asyncio.run(main())
"""


async def refusal(url: str, *, migrate: bool = True) -> StoreError:
    backend = backend_from_url(url, migrate=migrate)
    with pytest.raises(StoreError) as refusal:
        await backend.open()
    await backend.close(1)
    assert PASSWORD not in str(refusal.value)
    return refusal.value


def signed_in(url: str, user: str, password: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{user}:{password}@{parts.netloc.rpartition('@')[2]}").geturl()


async def test_an_empty_database_gets_the_schema(server: Server, open_backend: OpenBackend) -> None:
    database = server.new_database()
    backend = await open_backend(server.url(database))
    assert await everything(backend) == []
    versions = server.sql("SELECT version FROM eventcore.schema_version ORDER BY 1", database)
    assert versions == "\n".join(map(str, range(1, SCHEMA_VERSION + 1)))


async def test_schemas_of_one_database_are_stores_of_their_own(url: str, open_backend: OpenBackend) -> None:
    # "user" is a word of SQL, too.
    one, other = await open_backend(f"{url}?schema=orders_2"), await open_backend(f"{url}?schema=user")
    assert await one.log.append([request({"a": 0}, "a")]) == [1]
    assert await other.log.append([request({"a": 0}, "a")]) == [1]
    assert [len(await everything(backend)) for backend in (one, other)] == [1, 1]


async def test_processes_that_open_a_new_store_at_once_all_succeed(server: Server) -> None:
    database = server.new_database()
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            *("-W", "error", "-c", OPEN, server.url(database)),
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        for _ in range(4)
    ]
    outcomes = await asyncio.wait_for(asyncio.gather(*(process.communicate(b"go\n") for process in processes)), 40)
    assert [errors for _, errors in outcomes] == [b""] * 4
    assert server.sql("SELECT count(*) FROM eventcore.schema_version", database) == str(SCHEMA_VERSION)


async def test_without_leave_to_migrate_nothing_is_created(server: Server) -> None:
    database = server.new_database()
    error = await refusal(server.url(database), migrate=False)
    assert isinstance(error, IncompatibleStore)
    assert "does not exist" in str(error)
    assert "eventcore migrate" in str(error)
    assert server.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'eventcore'", database) == "0"


VERSION_1 = files("eventcore.stores.postgres").joinpath("migrations", "1_events.sql").read_text(encoding="utf-8")


async def test_an_older_schema_is_migrated_or_refused(
    server: Server, url: str, database: str, open_backend: OpenBackend
) -> None:
    server.sql(
        f"DROP SCHEMA eventcore CASCADE; CREATE SCHEMA eventcore; {for_schema(VERSION_1, 'eventcore')}; "
        "INSERT INTO eventcore.schema_version (version) VALUES (1)",
        database,
    )
    error = await refusal(url, migrate=False)
    assert isinstance(error, IncompatibleStore)
    assert f"has version 1, this eventcore needs version {SCHEMA_VERSION}" in str(error)
    backend = await open_backend(url)
    assert await backend.ledger.projections() == []


async def test_a_newer_schema_is_refused(server: Server, url: str, database: str) -> None:
    server.sql("INSERT INTO eventcore.schema_version VALUES (99)", database)
    error = await refusal(url)
    assert isinstance(error, IncompatibleStore)
    assert "has version 99" in str(error)
    assert "upgrade eventcore" in str(error)


async def test_a_schema_of_something_else_is_left_alone(server: Server) -> None:
    database = server.new_database()
    server.sql("CREATE SCHEMA eventcore; CREATE TABLE eventcore.events (id integer)", database)
    error = await refusal(server.url(database))
    assert isinstance(error, IncompatibleStore)
    assert "holds tables of something else" in str(error)
    assert server.sql("SELECT count(*) FROM pg_class WHERE relnamespace = 'eventcore'::regnamespace", database) == "1"


async def test_nobody_at_the_address() -> None:
    [port] = free_ports(1)
    error = await refusal(f"postgresql://postgres:{PASSWORD}@127.0.0.1:{port}/shop")
    assert type(error) is StoreUnavailable
    assert f"no PostgreSQL server can be reached at 127.0.0.1:{port}/shop" in str(error)


async def test_a_host_that_does_not_exist() -> None:
    error = await refusal(f"postgresql://postgres:{PASSWORD}@nowhere.invalid/shop")
    assert type(error) is StoreUnavailable


@pytest.mark.parametrize("url", ["postgresql://u:{}@127.0.0.1:port/db", "postgresql://u:{}@127.0.0.1/db?sslmode=maybe"])
async def test_what_only_the_driver_can_judge_in_a_url(url: str) -> None:
    with pytest.raises(InvalidStoreUrl, match="cannot be used") as refusal:
        await backend_from_url(url.format(PASSWORD)).open()
    assert PASSWORD not in str(refusal.value)


async def test_a_wrong_password(url: str) -> None:
    error = await refusal(signed_in(url, "postgres", "wrong-word"))
    assert isinstance(error, AccessDenied)
    assert "refuses the password" in str(error)
    assert "wrong-word" not in str(error)


async def test_a_database_that_does_not_exist(server: Server) -> None:
    error = await refusal(server.url("nowhere"))
    assert isinstance(error, IncompatibleStore)
    assert "has no such database" in str(error)


async def test_a_user_without_rights(server: Server, url: str, database: str) -> None:
    role = f"{database}_guest"
    server.sql(f"CREATE ROLE {role} LOGIN PASSWORD 'guest'", database)
    error = await refusal(signed_in(f"{url}?schema=other", role, "guest"))
    assert isinstance(error, AccessDenied)
    assert "rights" in str(error)
    error = await refusal(signed_in(url, role, "guest"))
    assert isinstance(error, AccessDenied)


async def test_a_user_who_may_only_append_and_read_can_use_the_store(
    server: Server, url: str, database: str, open_backend: OpenBackend
) -> None:
    role = f"{database}_writer"
    server.sql(
        f"CREATE ROLE {role} LOGIN PASSWORD 'writer'; GRANT USAGE ON SCHEMA eventcore TO {role}; "
        f"GRANT SELECT ON ALL TABLES IN SCHEMA eventcore TO {role}; GRANT INSERT ON eventcore.events TO {role}",
        database,
    )
    backend = await open_backend(signed_in(url, role, "writer"))
    assert await backend.log.append([request({"a": 0}, "a")]) == [1]
    assert len(await everything(backend)) == 1
    with pytest.raises(AccessDenied):
        await backend.ledger.acquire_lease("balances", "me", 10)


async def test_a_database_that_is_not_utf8(server: Server) -> None:
    database = server.new_database("ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    error = await refusal(server.url(database))
    assert isinstance(error, IncompatibleStore)
    assert "has the encoding LATIN1" in str(error)
    assert server.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'eventcore'", database) == "0"


async def test_a_database_with_another_isolation_level_by_default(server: Server, url: str, database: str) -> None:
    server.sql(f"ALTER DATABASE {database} SET default_transaction_isolation = 'serializable'", database)
    error = await refusal(url)
    assert isinstance(error, IncompatibleStore)
    assert "serializable" in str(error)


async def test_a_server_that_acknowledges_too_early_is_reported(
    server: Server, url: str, database: str, open_backend: OpenBackend, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "eventcore"):
        await open_backend(url)
        assert caplog.records == []
        server.sql(f"ALTER DATABASE {database} SET synchronous_commit = off", database)
        await open_backend(url)
    [record] = caplog.records
    assert record.name == "eventcore.stores.postgres"
    assert "synchronous_commit = off: it acknowledges events before they are durable" in record.getMessage()
    assert PASSWORD not in record.getMessage()


async def test_a_server_without_fsync_is_reported(
    start_postgres: Callable[..., PostgresServer], open_backend: OpenBackend, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_postgres(fsync="off")
    with caplog.at_level(logging.WARNING, "eventcore"):
        await open_backend(server.url(server.new_database()))
    assert "fsync = off" in caplog.text


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (f"postgresql://u:{PASSWORD}@host", "names no database"),
        (f"postgresql://u:{PASSWORD}@host/", "names no database"),
        (f"postgresql://u:{PASSWORD}@host/a/b", "names no database"),
        (f"postgresql://u:{PASSWORD}@[host/db", "cannot be read"),
        (
            f"postgresql://u:{PASSWORD}@host/db?schema=Shop",
            "schema='Shop' in the store URL; expected 1 to 48 lower-case letters",
        ),
        (f"postgresql://u:{PASSWORD}@host/db?schema=a;drop", "schema='a;drop'"),
        (f"postgresql://u:{PASSWORD}@host/db?schema=pg_x", "schema='pg_x'"),
        (f"postgresql://u:{PASSWORD}@host/db?schema={'x' * 49}", "schema='xxx"),
        (f"postgresql://u:{PASSWORD}@host/db?pool=0", "pool='0' in the store URL; expected a whole number from 1 to 100"),
        (f"postgresql://u:{PASSWORD}@host/db?pool=many", "pool='many'"),
        (f"postgresql://u:{PASSWORD}@host/db?timeout=nan", "timeout='nan' in the store URL; expected seconds"),
        (
            f"postgresql://u:{PASSWORD}@host/db?statement_cache=no",
            "statement_cache='no' in the store URL; expected one of on, off",
        ),
        (f"postgresql://u:{PASSWORD}@host/db?listen=1", "listen='1'"),
        (f"postgresql://u:{PASSWORD}@host/db?options=-cfsync=off", "unknown setting 'options'"),
    ],
)
def test_a_url_that_names_no_store_is_refused_without_its_password(url: str, problem: str) -> None:
    with pytest.raises(InvalidStoreUrl) as refusal:
        backend_from_url(url)
    assert problem in str(refusal.value)
    assert PASSWORD not in str(refusal.value)


def test_no_repr_shows_the_password(url: str) -> None:
    assert PASSWORD not in repr(vars(backend_from_url(url)))
