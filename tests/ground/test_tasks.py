"""Tasks that their owner starts, cancels and awaits."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from eventcore.ground import OwnedTask, cancel_and_wait, spawn

request: ContextVar[str] = ContextVar("request", default="none")


async def for_ever() -> None:
    await asyncio.Event().wait()


async def started(task: OwnedTask[None]) -> OwnedTask[None]:
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


@pytest.mark.parametrize("loop_turns", range(4))
async def test_a_task_ends_also_when_its_own_timeout_expires_at_the_same_moment(loop_turns: int) -> None:
    async def work() -> None:
        while True:
            try:
                async with asyncio.timeout(0):
                    try:
                        await asyncio.Event().wait()
                    finally:
                        # Clean-up that takes a few turns of the loop, in which the task counts as being cancelled.
                        for _ in range(3):
                            await asyncio.sleep(0)
            except TimeoutError:
                await asyncio.sleep(0.001)

    task = spawn(work(), "work")
    for _ in range(loop_turns):
        await asyncio.sleep(0)
    assert await cancel_and_wait(task, timeout=5)
    assert task.cancelled()


async def test_a_second_call_does_not_interrupt_the_clean_up() -> None:
    cleaned_up = False

    async def work() -> None:
        nonlocal cleaned_up
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.02)
            cleaned_up = True

    task = spawn(work(), "work")
    await asyncio.sleep(0)
    assert all(await asyncio.gather(cancel_and_wait(task, 5), cancel_and_wait(task, 5)))
    assert cleaned_up


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


async def test_an_exception_of_the_clean_up_stays_in_the_task_and_is_not_reported_as_lost() -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("while cleaning up")

    task = spawn(work(), "work")
    await asyncio.sleep(0)
    assert await cancel_and_wait(task)
    with pytest.raises(ValueError, match="while cleaning up"):
        task.result()
    del task
    await asyncio.sleep(0)
    assert reported == []


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
