"""The circuit breaker: opened by a failure, closed by a probe."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import monotonic

import pytest

from eventcore.ground import Breaker, BreakerState


class Server:
    """Answers probes while it is not ``away``, and keeps the states of the breaker."""

    def __init__(self) -> None:
        self.away = False
        self.probes = 0
        self.states: list[BreakerState] = []

    async def probe(self) -> None:
        self.probes += 1
        if self.away:
            raise ConnectionRefusedError

    async def until_closed(self) -> None:
        async with asyncio.timeout(10):
            while self.states[-1] != "closed":
                await asyncio.sleep(0.01)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def breaker(server: Server) -> AsyncIterator[Breaker]:
    breaker = Breaker(server.probe, server.states.append)
    yield breaker
    await breaker.close()


async def test_it_opens_and_is_closed_by_the_first_probe_that_the_server_answers(server: Server, breaker: Breaker) -> None:
    assert breaker.open_reason() is None
    server.away = True
    breaker.trip("no answer", since=monotonic())
    assert breaker.is_open
    reason = breaker.open_reason()
    assert reason is not None
    assert reason.startswith("no answer (found 0.0 s ago")
    async with asyncio.timeout(10):
        while server.probes < 2:
            await asyncio.sleep(0.01)
    server.away = False
    await server.until_closed()
    assert not breaker.is_open
    assert server.states[:3] == ["open", "half_open", "open"]
    assert server.states[-2:] == ["half_open", "closed"]


async def test_it_stays_closed_when_the_server_has_answered_another_call_meanwhile(server: Server, breaker: Breaker) -> None:
    begun = monotonic()
    breaker.answered()
    breaker.trip("no answer", since=begun)
    assert not breaker.is_open
    assert server.states == []


async def test_tripping_it_twice_starts_one_series_of_probes(server: Server, breaker: Breaker) -> None:
    for _ in range(3):
        breaker.trip("no answer", since=monotonic())
    await server.until_closed()
    assert server.probes == 1
    assert server.states == ["open", "half_open", "closed"]
    breaker.trip("away again", since=monotonic())
    await server.until_closed()
    assert server.probes == 2


async def test_closing_it_ends_the_probes(server: Server, breaker: Breaker) -> None:
    server.away = True
    breaker.trip("no answer", since=monotonic())
    await breaker.close()
    assert not breaker.is_open
    probes = server.probes
    await asyncio.sleep(0.3)
    assert server.probes == probes
