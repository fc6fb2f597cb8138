"""Forked children of a test."""

from __future__ import annotations

import os
import select
import signal
import warnings
from collections.abc import Callable
from contextlib import suppress

from eventcore.testing.exporters.delivery import wait_for


class Child:
    """A forked process that runs ``work``, and ends with 0 if that returned true.

    Args:
        work: what it does.
    """

    def __init__(self, work: Callable[[], bool]) -> None:
        self._told, self._until = -1, -1
        with warnings.catch_warnings():
            # Python 3.12 and later warn of threads at a fork. Core waits for the hooks, and replaces its locks in the child.
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            self._process = os.fork()
        if not self._process:
            code = 1
            try:
                code = 0 if work() else 1
            finally:
                os._exit(code)

    @classmethod
    def that_waits(cls, work: Callable[[Callable[[], None]], bool]) -> Child:
        """A child whose ``work`` is given a function: it says that the child has worked, and waits until ``wait`` is called."""
        (told, tells), (waits, until) = os.pipe(), os.pipe()

        def tell() -> None:
            os.write(tells, b"1")
            os.close(until)
            os.read(waits, 1)

        child = cls(lambda: work(tell))
        os.close(tells)
        os.close(waits)
        child._told, child._until = told, until
        return child

    def has_worked(self, timeout: float) -> bool:
        """Wait until the child says that it has worked; false when it ends or takes too long."""
        ready, _, _ = select.select([self._told], [], [], timeout)
        return bool(ready and os.read(self._told, 1))

    def wait(self, timeout: float) -> int:
        """Let the child end, and return its exit code; -9 when it did not end in time."""
        if self._until >= 0:
            # A byte, and not the end of the pipe: children that were forked later have the pipe, too.
            with suppress(BrokenPipeError):
                os.write(self._until, b"1")
            os.close(self._told)
            os.close(self._until)
            self._told = self._until = -1
        status: list[int] = []

        def has_ended() -> bool:
            process, code = os.waitpid(self._process, os.WNOHANG)
            status.append(code)
            return process == self._process

        if not wait_for(has_ended, timeout + 2.0):
            os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)
            return -signal.SIGKILL
        return os.waitstatus_to_exitcode(status[-1])
