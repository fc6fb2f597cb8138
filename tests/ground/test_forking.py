"""What is called around a fork, in which order, and that nothing is left behind of what no longer exists."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from typing import Any

import pytest

from eventcore import open_store

PROGRAM = """
import gc, os, sys, weakref
from eventcore.ground import around_fork

class Owner:
    def __init__(self, name):
        self.name = name
        around_fork(self, before=lambda each: say("before", each), after_in_parent=lambda each: say("parent", each))
        around_fork(self, after_in_child=lambda each: say("child", each))

said = []
# Not what Python does, which is to print: parent and child would print at the same time.
sys.excepthook = lambda kind, error, traceback: said.append(f"{kind.__name__}: {error}")
def say(when, owner):
    said.append(f"{when} {owner.name}")
    if owner.name == "b":
        raise ValueError("a handler must not raise")

a, b, gone, c = Owner("a"), Owner("b"), Owner("gone"), Owner("c")
reference = weakref.ref(gone)
del gone
gc.collect()
assert reference() is None
pid = os.fork()
if pid:
    os.waitpid(pid, 0)
print(", ".join(said), flush=True)
os._exit(0)
"""


@pytest.mark.once
@pytest.mark.timeout(30)
def test_handlers_run_in_order_for_what_still_exists() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    raised = "ValueError: a handler must not raise"
    assert done.stdout.splitlines() == [
        f"before c, before b, {raised}, before a, child a, child b, {raised}, child c",
        f"before c, before b, {raised}, before a, parent a, parent b, {raised}, parent c",
    ]


async def test_stores_that_are_opened_and_closed_register_nothing_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[dict[str, Any]] = []
    register = os.register_at_fork

    def count(**handlers: Any) -> None:
        registered.append(handlers)
        register(**handlers)

    monkeypatch.setattr(os, "register_at_fork", count)
    for _ in range(20):
        async with open_store("memory:", exporters=[]):
            await asyncio.sleep(0)
    gc.collect()
    # One for all of them; none when an earlier test has made it.
    assert len(registered) <= 1
