"""Blocking work in a daemon thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def in_background(work: Callable[[], T], name: str) -> Future[T]:
    """Run ``work`` in a new daemon thread, and return the future of its result.

    Unlike the threads of an executor, a daemon thread never delays the end of the process. The
    future cannot be cancelled; a caller that no longer waits leaves the thread to end by itself.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001  # the caller gets it from the future
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
