"""What a forked child must not touch: the objects of its parent that share files, sockets and locks with it."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def around_fork(
    owner: T,
    *,
    before: Callable[[T], None] | None = None,
    after_in_parent: Callable[[T], None] | None = None,
    after_in_child: Callable[[T], None] | None = None,
) -> None:
    """Call the functions with ``owner`` around each fork of this process from now on, while ``owner`` exists.

    Functions that are called after a fork run in the order in which they were registered, the others in reverse order. Those in
    the child run in its only thread, before the code behind the fork.

    Args:
        owner: the object that has something to do; it is not kept alive.
        before, after_in_parent, after_in_child: must not raise, and must not refer to ``owner`` except by their argument.
    """
    # Python has no way to remove a fork handler, so the handlers must not keep the owner alive.
    reference = weakref.ref(owner)

    def handler(react: Callable[[T], None] | None) -> Callable[[], None]:
        def handle() -> None:
            if react is not None and (found := reference()) is not None:
                react(found)

        return handle

    os.register_at_fork(
        before=handler(before), after_in_parent=handler(after_in_parent), after_in_child=handler(after_in_child)
    )


def leave_to_parent(resource: object) -> None:
    """Keep ``resource`` and everything that it refers to alive in this forked child, until the process ends.

    The finalizers of inherited connections act on what the parent still uses: asyncpg's takes the socket out of the epoll
    object that parent and child share, and SQLite's may copy the write-ahead log. An object whose reference count is too high
    by one is never finalized, not even when the interpreter ends.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(resource))
