"""What a forked child must not touch: the objects of its parent that share files, sockets and locks with it."""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from collections.abc import Callable
from functools import cache, partial
from itertools import count
from typing import Any, TypeVar, final

T = TypeVar("T")

_React = Callable[[Any], None] | None


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
    _handlers().add(owner, before, after_in_parent, after_in_child)


@final
class _Handlers:
    """The functions of all owners, of which each is forgotten with its owner.

    Python has no way to remove a fork handler, so one set of handlers is registered for all owners.
    """

    def __init__(self) -> None:
        self._numbers = count()
        # By number, so in the order in which they were added. Any thread changes it, by one operation at a time.
        self._entries: dict[int, tuple[weakref.ref[Any], tuple[_React, _React, _React]]] = {}
        os.register_at_fork(
            before=partial(self._call, 0, reverse=True),
            after_in_parent=partial(self._call, 1),
            after_in_child=partial(self._call, 2),
        )

    def add(self, owner: object, before: _React, after_in_parent: _React, after_in_child: _React) -> None:
        number, entries = next(self._numbers), self._entries
        reference = weakref.ref(owner, lambda _: entries.pop(number, None))
        entries[number] = (reference, (before, after_in_parent, after_in_child))

    def _call(self, which: int, *, reverse: bool = False) -> None:
        entries = list(self._entries.values())
        for reference, functions in reversed(entries) if reverse else entries:
            react, owner = functions[which], reference()
            if react is not None and owner is not None:
                try:
                    react(owner)
                except Exception as error:  # noqa: BLE001  # as Python does with its handlers: the others are called all the same
                    sys.excepthook(type(error), error, error.__traceback__)


@cache
def _handlers() -> _Handlers:
    """Made by the first call: importing this module registers nothing. When two threads make one each, both serve."""
    return _Handlers()


def leave_to_parent(resource: object) -> None:
    """Keep ``resource`` and everything that it refers to alive in this forked child, until the process ends.

    The finalizers of inherited connections act on what the parent still uses: asyncpg's takes the socket out of the epoll
    object that parent and child share, and SQLite's may copy the write-ahead log. An object whose reference count is too high
    by one is never finalized, not even when the interpreter ends.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(resource))
