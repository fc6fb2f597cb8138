"""What a forked child must not touch: the objects of its parent that share files, sockets and locks with it."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def in_forked_child(owner: T, react: Callable[[T], None]) -> None:
    """Call ``react(owner)`` in each child that this process forks from now on, while ``owner`` exists.

    Handlers run in the order in which they were registered, in the only thread of the child, before the code after the fork.

    Args:
        owner: the object that has something to do; it is not kept alive.
        react: must neither block nor raise, and must not refer to ``owner`` except by its argument.
    """
    # Python has no way to remove a fork handler, so the handler must not keep the owner alive.
    reference = weakref.ref(owner)

    def handle() -> None:
        if (found := reference()) is not None:
            react(found)

    os.register_at_fork(after_in_child=handle)


def leave_to_parent(resource: object) -> None:
    """Keep ``resource`` and everything that it refers to alive in this forked child, until the process ends.

    The finalizers of inherited connections act on what the parent still uses: asyncpg's takes the socket out of the epoll
    object that parent and child share, and SQLite's may copy the write-ahead log. An object whose reference count is too high
    by one is never finalized, not even when the interpreter ends.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(resource))
