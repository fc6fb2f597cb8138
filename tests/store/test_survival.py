"""A failure of one caller does not reach the others."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventcore import Command, Event, EventStore, StreamId, open_store
from tests.real_parts import wait_until


class Survived(Event):
    event_type = "survival.Survived"


class Survive(Command[None]):
    stream: StreamId

    def handle(self, state: None) -> Iterator[tuple[StreamId, Event]]:
        yield self.stream, Survived()


class Panic(BaseException):
    """Not an ``Exception``; some libraries raise such classes for their own faults."""


class Fail(Command[None]):
    stream: StreamId

    def handle(self, state: None) -> Iterator[tuple[StreamId, Event]]:
        raise Panic("lost my head")
        yield self.stream, Survived()


async def test_a_command_that_raises_no_exception_but_worse_fails_alone(store: EventStore) -> None:
    answers = await asyncio.wait_for(
        asyncio.gather(
            store.execute(Survive(stream=StreamId("a"))),
            store.execute(Fail(stream=StreamId("b"))),
            store.execute(Survive(stream=StreamId("c"))),
            return_exceptions=True,
        ),
        10,
    )
    assert isinstance(answers[1], Panic)
    assert await store.head_position() == 2
    assert (await store.execute(Survive(stream=StreamId("a")))).position == 3


async def test_a_close_that_its_caller_gives_up_still_ends_and_leaves_no_thread(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = open_store(f"sqlite:///{path}?busy_timeout=2", exporters="none")
    await store.__aenter__()
    await store.execute(Survive(stream=StreamId("a")))
    before = threading.active_count()
    assert before > 1
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin immediate")
    waiting = asyncio.ensure_future(store.execute(Survive(stream=StreamId("a"))))
    await asyncio.sleep(0.05)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await store.close()
    other.execute("rollback")
    other.close()
    await store.close()
    await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.to_thread(wait_until, lambda: not [t for t in threading.enumerate() if t.name.startswith("eventcore-sqlite")])
