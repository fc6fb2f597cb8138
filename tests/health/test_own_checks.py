"""Checks of the application: whatever they return, raise or wait for."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Coroutine

import msgspec
import pytest

from eventcore import EventStore
from eventcore.health import CheckResult
from tests.health.conftest import check


async def test_a_check_of_the_application_may_return_or_raise_anything(store: EventStore) -> None:
    class Odd:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    async def slow() -> None:
        await asyncio.sleep(60)

    def raise_it() -> None:
        raise KeyError(Odd())

    async def fine() -> CheckResult:
        return CheckResult(figures={"depth": float("nan"), "password": "abc", "queue": Odd(), "big": 10**400})  # type: ignore[dict-item]

    store.add_health_check("fine", fine)
    store.add_health_check("false", lambda: False)
    store.add_health_check("slow", slow, timeout=0.05)
    store.add_health_check("raises", raise_it, essential=True)
    store.add_health_check("purple", lambda: CheckResult(status="purple"))  # type: ignore[arg-type]
    store.add_health_check("odd", lambda: "yes")  # type: ignore[arg-type, return-value]
    health = await store.health()
    own = ("fine", "false", "slow", "raises", "purple", "odd")
    assert {name: health.checks[name].status for name in own} == {
        "fine": "healthy",
        "false": "unhealthy",
        "slow": "unhealthy",
        "raises": "unhealthy",
        "purple": "unhealthy",
        "odd": "unhealthy",
    }
    assert not health.ready
    assert health.checks["slow"].reason.startswith("no answer within 0.")
    assert dict(health.checks["fine"].figures) == {
        "depth": None,
        "password": "***",
        "queue": "<Odd whose text raises RuntimeError>",
        "big": None,
    }


async def test_a_check_that_blocks_its_thread_runs_once_and_does_not_block_the_loop(store: EventStore) -> None:
    runs: list[float] = []

    def block() -> None:
        runs.append(time.monotonic())
        time.sleep(1.0)

    store.add_health_check("blocking", block, timeout=0.05)
    begun = time.monotonic()
    found = [await check(store, "blocking") for _ in range(5)]
    assert time.monotonic() - begun < 0.8
    assert {each.status for each in found} == {"unhealthy"}
    assert found[-1].reason == "a run that began 0 s ago has not ended"
    assert len(runs) == 1


async def test_a_coroutine_that_a_check_returns_too_late_is_closed(store: EventStore) -> None:
    async def ask() -> None: ...

    made: list[Coroutine[None, None, None]] = []
    go_on = threading.Event()

    def ask_late() -> Coroutine[None, None, None]:
        assert go_on.wait(10)
        made.append(ask())
        return made[0]

    store.add_health_check("late", ask_late, timeout=0.05)
    assert (await check(store, "late")).status == "unhealthy"
    go_on.set()
    async with asyncio.timeout(10):
        while not made or inspect.getcoroutinestate(made[0]) != inspect.CORO_CLOSED:
            await asyncio.sleep(0.01)


async def test_a_check_that_wants_to_end_the_process_has_failed_and_nothing_ends(store: EventStore) -> None:
    class Odd(BaseException):
        __qualname__ = "Odd"

    def leave() -> None:
        raise SystemExit(3)

    def stop() -> None:
        raise StopIteration

    async def leave_later() -> None:
        raise SystemExit(3)

    async def odd() -> None:
        raise Odd

    for name, each in (("leave", leave), ("stop", stop), ("leave_later", leave_later), ("odd", odd)):
        store.add_health_check(name, each)
    health = await store.health()
    assert {name: found.reason for name, found in health.problems().items()} == {
        "leave": "SystemExit: 3",
        "stop": "StopIteration",
        "leave_later": "SystemExit: 3",
        "odd": "Odd",
    }


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("store", "there is a health check called 'store' already"),
        ("pool", "there is a health check called 'pool' already"),
        ("exporter:mine", "belong to the store"),
        ("", "expected 1 to 100 printable characters"),
        ("a\nb", "expected 1 to 100 printable characters"),
    ],
)
async def test_a_name_that_a_check_cannot_have_is_refused(store: EventStore, name: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        store.add_health_check(name, lambda: True)


async def test_no_password_of_an_error_reaches_the_answer(store: EventStore) -> None:
    def fail() -> None:
        raise ConnectionError('amqp://shop:hunter2@mq/ said {"api_key": "s3cr3t", "Authorization": "Bearer abcdef"}')

    store.add_health_check("queue", fail)
    text = msgspec.json.encode(await store.health()).decode()
    assert "amqp://shop:***@mq/" in text
    assert not [secret for secret in ("hunter2", "s3cr3t", "abcdef") if secret in text]


@pytest.mark.parametrize("reason", ["token-" * 333, "token " * 333, "a-" * 1000, "://a:" * 400])
async def test_a_long_reason_does_not_stop_the_event_loop(store: EventStore, reason: str) -> None:
    store.add_health_check("queue", lambda: CheckResult(status="unhealthy", reason=reason))
    begun = time.process_time()
    found = await check(store, "queue")
    assert time.process_time() - begun < 1
    assert len(found.reason) == 500
