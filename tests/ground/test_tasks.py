from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from eventcore.ground import cancel_and_wait, spawn

request: ContextVar[str] = ContextVar("request", default="none")


async def for_ever() -> None:
    await asyncio.Event().wait()


async def started(task: asyncio.Task[None]) -> asyncio.Task[None]:
    await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_a_spawned_task_starts_in_an_empty_context() -> None:
    async def read() -> str:
        return request.get()

    request.set("of the caller")
    assert await spawn(read(), "reader") == "none"
    assert await asyncio.create_task(read()) == "of the caller"


async def test_a_spawned_task_has_its_name_and_gives_its_result() -> None:
    async def name() -> str:
        task = asyncio.current_task()
        assert task is not None
        return task.get_name()

    assert await spawn(name(), "eventcore-named") == "eventcore-named"


async def test_cancelling_waits_until_the_clean_up_has_ended() -> None:
    steps: list[str] = []

    async def work() -> None:
        try:
            await for_ever()
        finally:
            await asyncio.sleep(0.01)
            steps.append("cleaned up")

    task = await started(spawn(work(), "worker"))
    assert await cancel_and_wait(task)
    assert steps == ["cleaned up"]
    assert task.cancelled()


async def test_a_task_that_is_being_cancelled_is_not_cancelled_again() -> None:
    cancellations = 0

    async def work() -> None:
        nonlocal cancellations
        for _ in range(2):
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                cancellations += 1

    task = await started(spawn(work(), "worker"))
    task.cancel()
    await asyncio.sleep(0)
    assert await cancel_and_wait(task)
    assert cancellations == 1


async def test_a_task_that_does_not_end_in_time_is_reported_and_goes_on() -> None:
    leave = asyncio.Event()

    async def work() -> None:
        try:
            await for_ever()
        finally:
            await leave.wait()

    task = await started(spawn(work(), "worker"))
    assert not await cancel_and_wait(task, timeout=0.01)
    assert not task.done()
    leave.set()
    assert await cancel_and_wait(task, timeout=1)


async def test_a_task_that_has_ended_is_left_as_it_is() -> None:
    async def fail() -> None:
        raise LookupError("of the task")

    task = spawn(fail(), "failing")
    await asyncio.wait([task])
    assert await cancel_and_wait(task)
    with pytest.raises(LookupError, match="of the task"):
        await task


async def test_an_exception_during_the_clean_up_stays_in_the_task() -> None:
    async def work() -> None:
        try:
            await for_ever()
        finally:
            raise LookupError("of the clean-up")

    task = await started(spawn(work(), "worker"))
    assert await cancel_and_wait(task)
    assert isinstance(task.exception(), LookupError)


async def test_a_caller_that_is_cancelled_while_it_waits_stops_waiting() -> None:
    leave = asyncio.Event()

    async def work() -> None:
        try:
            await for_ever()
        finally:
            await leave.wait()

    task = await started(spawn(work(), "worker"))
    caller = asyncio.create_task(cancel_and_wait(task))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert not task.done()
    leave.set()
    await asyncio.wait([task])
