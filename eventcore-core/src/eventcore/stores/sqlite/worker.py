"""A thread that runs blocking jobs for an event loop, one after the other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar, final

from eventcore.errors import StoreClosed

T = TypeVar("T")


@final
class Worker:
    """A daemon thread with a queue of jobs. The thread pool of the standard library would delay the interpreter's exit.

    When a caller is cancelled, its job still runs; only its result is lost.
    """

    def __init__(self, name: str) -> None:
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._closed = False
        # A thread starts in an empty context: the context variables of the caller do not reach later jobs.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def run(self, job: Callable[[], T]) -> T:
        """The result of ``job``, which the thread calls after the jobs before it.

        Raises:
            StoreClosed: after ``close``.
        """
        self._check_open()
        return await self._put(job)

    def post(self, job: Callable[[], T]) -> Future[T]:
        """Like ``run``, for any thread. A job that the worker's own thread posts starts without waiting for the event loop.

        Raises:
            StoreClosed: after ``close``.
        """
        self._check_open()
        future: Future[T] = Future()
        self._queue.put(partial(_answer_thread, job, future))
        return future

    async def close(self, last: Callable[[], None], timeout: float) -> None:
        """Finish the jobs in the queue, call ``last`` and end the thread; wait for that at most ``timeout`` seconds."""
        if self._closed:
            return
        self._closed = True
        future = self._put(last)
        self._queue.put(None)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await future

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosed("the store is closed")

    def _put(self, job: Callable[[], T]) -> asyncio.Future[T]:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put(partial(_answer_loop, job, future))
        return future

    def _work(self) -> None:
        while (call := self._queue.get()) is not None:
            call()
            # The next get() may block for long: keep no reference to the job's arguments meanwhile.
            del call


def _answer_loop(job: Callable[[], T], future: asyncio.Future[T]) -> None:
    """Call ``job`` in this thread, and set its result on the event loop of ``future``."""
    result: T | None = None
    failure: BaseException | None = None
    try:
        result = job()
    except BaseException as error:  # noqa: BLE001  # every error is raised to the caller
        failure = error
    # A loop that is closed raises RuntimeError; then no caller waits any more.
    with suppress(RuntimeError):
        future.get_loop().call_soon_threadsafe(_set, future, result, failure)


def _set(future: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
    if future.done():
        # The caller was cancelled.
        return
    if failure is None:
        future.set_result(result)
    else:
        future.set_exception(failure)


def _answer_thread(job: Callable[[], T], future: Future[T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(job())
    except BaseException as error:  # noqa: BLE001  # every error is raised to the caller
        future.set_exception(error)
