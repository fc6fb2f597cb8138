"""Slots bound how many commands are in progress."""

from __future__ import annotations

import asyncio

import pytest

from eventcore.commands.executor import Slots


async def test_a_slot_is_given_to_those_who_wait_in_their_order() -> None:
    slots, order = Slots(1), list[int]()
    assert slots.take()
    assert not slots.take()

    async def wait(number: int) -> None:
        await slots.wait()
        order.append(number)
        slots.give_back()

    waiting = [asyncio.create_task(wait(number)) for number in range(3)]
    await asyncio.sleep(0)
    slots.give_back()
    assert not slots.take(), "the slot belongs to the first who waits"
    await asyncio.wait_for(asyncio.gather(*waiting), 10)
    assert order == [0, 1, 2]
    assert slots.take()


@pytest.mark.parametrize("given_back_first", [False, True])
async def test_who_gives_up_loses_no_slot(*, given_back_first: bool) -> None:
    slots = Slots(1)
    assert slots.take()
    gives_up, goes_on = asyncio.create_task(slots.wait()), asyncio.create_task(slots.wait())
    await asyncio.sleep(0)
    if given_back_first:
        slots.give_back()
    gives_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gives_up
    if not given_back_first:
        slots.give_back()
    await asyncio.wait_for(goes_on, 10)
    slots.give_back()
    assert slots.take()
    assert not slots.take()
