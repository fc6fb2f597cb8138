"""Tasks that their owner cancels and awaits."""

from __future__ import annotations

import asyncio

import pytest

from eventcore.ground import cancel_and_wait, spawn


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


async def test_a_task_that_does_not_end_is_left_after_the_timeout() -> None:
    go_on = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await go_on.wait()

    task = spawn(work(), "work")
    await asyncio.sleep(0)
    assert not await cancel_and_wait(task, 0.01)
    go_on.set()
    assert await cancel_and_wait(task, 5)


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
