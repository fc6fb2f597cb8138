"""The timeout that many tasks share: it cancels exactly those that take too long."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest

from eventcore.ground import CommonTimeout


async def work(limit: CommonTimeout, seconds: float) -> str:
    task = limit.begin()
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        if not limit.expired(task):
            raise
        return "expired"
    finally:
        limit.end(task)
    return "done"


async def test_those_that_take_too_long_expire_and_no_others() -> None:
    limit = CommonTimeout(0.3)
    begun = monotonic()
    tasks = [asyncio.create_task(work(limit, 30 if number % 3 == 0 else 0.01)) for number in range(30)]
    assert await asyncio.gather(*tasks) == ["expired" if number % 3 == 0 else "done" for number in range(30)]
    assert 0.25 < monotonic() - begun < 5
    assert all(task.cancelling() == 0 for task in tasks)
    # The timer is armed again by later ones.
    assert list(await asyncio.gather(work(limit, 30), work(limit, 0.01))) == ["expired", "done"]


async def test_one_that_begins_later_expires_later() -> None:
    limit = CommonTimeout(0.4)
    first = asyncio.create_task(work(limit, 30))
    await asyncio.sleep(0.2)
    begun = monotonic()
    second = asyncio.create_task(work(limit, 30))
    assert await first == "expired"
    assert not second.done()
    assert await second == "expired"
    assert monotonic() - begun >= 0.39


async def test_a_cancellation_from_outside_is_passed_on() -> None:
    limit = CommonTimeout(30)
    task = asyncio.create_task(work(limit, 30))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    limit.close()


async def test_a_cancellation_from_outside_at_the_same_time_wins() -> None:
    limit = CommonTimeout(0.0)
    task = asyncio.create_task(work(limit, 30))
    await asyncio.sleep(0)
    limit._expire()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    limit.close()


async def test_a_task_that_has_expired_can_wait_again() -> None:
    limit = CommonTimeout(0.05)

    async def twice() -> list[str]:
        return [await work(limit, 30), await work(limit, 0.0), await work(limit, 30)]

    assert await twice() == ["expired", "done", "expired"]
    limit.close()
