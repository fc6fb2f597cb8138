"""An event loop does the work of another thread in slices, and the thread does it itself where no loop can."""

from __future__ import annotations

import asyncio
import threading

import pytest

from eventcore.ground import LoopSlices

pytestmark = pytest.mark.timeout(30)


class Work:
    """So many slices; it notes the thread of each."""

    def __init__(self, slices: int) -> None:
        self.left = slices
        self.threads: list[int] = []

    def __call__(self) -> bool:
        self.threads.append(threading.get_ident())
        self.left -= 1
        return self.left > 0


async def test_the_running_loop_does_the_work_and_other_callbacks_between_slices() -> None:
    slices, work = LoopSlices(), Work(20)
    turns: list[int] = []

    async def busy() -> None:
        while work.left:
            await asyncio.sleep(0)
            turns.append(work.left)

    stop = slices.lend()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(busy())
        tasks.create_task(asyncio.to_thread(slices.run, work))
    stop()
    assert work.threads == [threading.get_ident()] * 20
    assert set(range(1, 20)) <= set(turns)


def test_without_a_loop_the_thread_does_its_work() -> None:
    work = Work(3)
    LoopSlices().run(work)
    assert work.threads == [threading.get_ident()] * 3


async def test_a_loop_that_has_stopped_lending_is_not_asked() -> None:
    slices, work = LoopSlices(), Work(3)
    first, second = slices.lend(), slices.lend()
    first()
    await asyncio.to_thread(slices.run, work)
    assert set(work.threads) == {threading.get_ident()}
    second()
    work.left = 3
    await asyncio.to_thread(slices.run, work)
    assert threading.get_ident() not in work.threads[3:]


async def test_a_loop_that_is_blocked_is_not_waited_for() -> None:
    slices, work, done = LoopSlices(), Work(3), threading.Event()
    slices.lend()

    def run() -> None:
        slices.run(work)
        done.set()

    thread = threading.Thread(target=run)
    thread.start()
    # The loop itself waits, as an application does that calls blocking code on it.
    assert done.wait(10.0)
    thread.join()
    assert threading.get_ident() not in work.threads
    # What was left on the loop does nothing later.
    await asyncio.sleep(0)
    assert len(work.threads) == 3


async def test_what_the_work_raises_is_raised_in_the_thread_that_waits() -> None:
    slices = LoopSlices()
    slices.lend()

    def fail() -> bool:
        raise ValueError("no such span")

    with pytest.raises(ValueError, match="no such span"):
        await asyncio.to_thread(slices.run, fail)
