"""Opening a store whose server is not up yet."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from eventcore import open_store
from eventcore.errors import AccessDenied, IncompatibleStore, InvalidStoreUrl, StoreUnavailable
from tests.real_parts.ports import free_ports
from tests.real_parts.postgres import PASSWORD, PostgresServer

pytest.importorskip("asyncpg")


@pytest.mark.once
@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({PASSWORD: "wrong"}, AccessDenied),
        ({"/postgres?": "/nothing_here?"}, IncompatibleStore),
        ({"?": "?sslmode=nonsense&"}, InvalidStoreUrl),
    ],
)
async def test_what_waiting_cannot_mend_fails_at_once(
    newest_postgres: PostgresServer, wrong: dict[str, str], error: type[Exception]
) -> None:
    url = f"{newest_postgres.url()}?timeout=10"
    for old, new in wrong.items():
        url = url.replace(old, new)
    begun = time.monotonic()
    with pytest.raises(error):
        async with open_store(url, exporters="none", open_timeout=30):
            pass
    assert time.monotonic() - begun < 8


async def test_a_server_that_is_not_there_is_waited_for_as_long_as_asked_and_no_longer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    [port] = free_ports(1)
    url = f"postgresql://user:{PASSWORD}@127.0.0.1:{port}/database"
    seconds = {}
    for open_timeout in (0.0, 0.8):
        begun = time.monotonic()
        with pytest.raises(StoreUnavailable, match="no PostgreSQL server can be reached"):
            async with open_store(url, exporters="none", open_timeout=open_timeout):
                pass
        seconds[open_timeout] = time.monotonic() - begun
    assert seconds[0.8] > 0.3
    assert seconds[0.8] < 5
    [record] = [each for each in caplog.records if each.name == "eventcore.store"]
    assert "the store 'default' is not there yet; trying again for 0.8 s" in record.getMessage()
    assert PASSWORD not in record.getMessage()


async def test_a_server_that_accepts_and_never_answers_does_not_make_opening_longer() -> None:
    # The system accepts connections for a socket that nobody reads from.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        begun = time.monotonic()
        with pytest.raises(StoreUnavailable, match="gave no answer until the end of open_timeout"):
            async with open_store(f"postgresql://u@127.0.0.1:{port}/d?timeout=20", exporters="none", open_timeout=0.5):
                pass
        assert time.monotonic() - begun < 5


async def test_a_server_that_accepts_and_never_answers_is_not_called_one_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(StoreUnavailable) as refused:
            async with open_store(f"postgresql://u@127.0.0.1:{port}/d?timeout=0.5", exporters="none"):
                pass
    assert str(refused.value).startswith(
        f"PostgreSQL at 127.0.0.1:{port}/d does not answer a new connection: it is stopped or overloaded, or a machine in "
    )
    assert "start it" not in str(refused.value)


async def test_what_an_earlier_attempt_found_is_named_when_the_last_one_has_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    """At first nothing listens; then something does, and never answers."""
    [port] = free_ports(1)

    async def open_it() -> None:
        async with open_store(f"postgresql://u@127.0.0.1:{port}/d", exporters="none", open_timeout=3):
            pass

    opening = asyncio.create_task(open_it())
    async with asyncio.timeout(10):
        while not any("is not there yet" in record.getMessage() for record in caplog.records):
            await asyncio.sleep(0.01)
    with socket.create_server(("127.0.0.1", port)):
        expected = (
            r"no PostgreSQL server can be reached .*; the last attempt found that the server gave no answer until the end"
        )
        with pytest.raises(StoreUnavailable, match=expected):
            await opening


async def test_a_negative_open_timeout_is_refused() -> None:
    with pytest.raises(ValueError, match="open_timeout=-1; expected seconds, 0 or more"):
        open_store("memory:", open_timeout=-1)
