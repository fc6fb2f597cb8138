"""Programs that fork; the tests run each in a process of its own: ``python -m tests.store.forking PROGRAM URL``.

Each prints what the child saw, then what the parent saw.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

from eventcore import open_store
from eventcore.errors import StoreClosed
from eventcore.store import EventStore
from tests.store.bank import Deposit, account


async def deposit(store: EventStore, times: int = 1) -> int:
    """Deposit one at a time, and return the last position."""
    position = 0
    for _ in range(times):
        position = (await store.execute(Deposit(account=account(1), amount=1), timeout=20)).position
    return position


async def deposits_in_new_store(url: str) -> int:
    async with open_store(url, exporters="none") as store:
        return await deposit(store)


async def refusal(store: EventStore) -> str:
    """The class of the error with which the store refuses each of its calls."""
    kinds: set[str] = set()
    for call in (
        lambda: deposit(store),
        store.head_position,
        store.projections,
        lambda: anext(store.read_all()),
        store.__aenter__,
    ):
        try:
            await call()
        except StoreClosed as error:
            kinds.add(type(error).__name__)
    await store.close()
    return " ".join(sorted(kinds))


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def fork(in_child: Callable[[], None]) -> int:
    """Run ``in_child`` in a forked child that ends as a program does; the exit code of the child."""
    with warnings.catch_warnings():
        # Python 3.12 and later warn that the threads of an open store do not exist in the child. The child uses none of them.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        process = os.fork()
    if not process:
        in_child()
        sys.exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def open_before(url: str) -> None:
    """The store is open when the process is forked, and its loop is not running."""
    runner = asyncio.Runner()
    store = runner.run(open_store(url, exporters="none").__aenter__())
    runner.run(deposit(store))

    def in_child() -> None:
        nonlocal store, runner
        say("child", asyncio.run(refusal(store)))
        say("child", asyncio.run(deposits_in_new_store(url)))
        # The finalizers of what the store has left to the parent would run now.
        del store, runner
        gc.collect()

    say("exit", fork(in_child))
    say("parent", runner.run(deposit(store, 50)))
    runner.run(store.close())
    runner.close()


def made_before(url: str) -> None:
    """The store is made, and not opened, when the process is forked."""
    store = open_store(url, exporters="none")

    async def use() -> int:
        async with store:
            return await deposit(store)

    say("exit", fork(lambda: say("child", asyncio.run(use()))))
    say("parent", asyncio.run(use()))


_inherited: list[EventStore] = []


def _in_process(url: str) -> None:
    say("child", asyncio.run(refusal(_inherited[0])) if _inherited else "nothing inherited")
    say("child", asyncio.run(deposits_in_new_store(url)))


def multiprocess(method: str) -> Callable[[str], None]:
    async def program(url: str) -> None:
        async with open_store(url, exporters="none") as store:
            await deposit(store)
            _inherited.append(store)
            context: Any = multiprocessing.get_context(method)  # its type has no Process
            process = context.Process(target=_in_process, args=(url,))
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
                process.start()
            await asyncio.to_thread(process.join)
            say("exit", process.exitcode)
            say("parent", await deposit(store, 50))

    return lambda url: asyncio.run(program(url))


PROGRAMS = {
    "open_before": open_before,
    "made_before": made_before,
    "fork": multiprocess("fork"),
    "forkserver": multiprocess("forkserver"),
    "spawn": multiprocess("spawn"),
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](sys.argv[2])
