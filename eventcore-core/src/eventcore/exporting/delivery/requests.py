"""What other threads ask of a pipeline's worker thread: a flush, or a metrics cycle now."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import Future, InvalidStateError
from typing import Any, final

import msgspec


@final
class Request(msgspec.Struct, eq=False):
    """A caller waits for a flush (``flush=True``) or for a metrics cycle until ``deadline`` (``time.monotonic``).

    The future of a flush gives ``""`` when everything was delivered, else why not. The future of a
    metrics cycle gives ``None``, or fails with ``RuntimeError``. Both fail with ``TimeoutError``
    when the worker had no time.
    """

    flush: bool
    deadline: float
    future: Future[Any]

    def answer(self, problem: str | Exception) -> None:
        """Settle the future, unless it is settled: the worker, and the distributor that fails late requests, may both try."""
        if problem and isinstance(problem, str) and not self.flush:
            problem = RuntimeError(problem)
        with contextlib.suppress(InvalidStateError):
            if isinstance(problem, Exception):
                self.future.set_exception(problem)
            else:
                self.future.set_result(problem if self.flush else None)


class RequestBox:
    """Requests wait here for the worker thread, and the worker thread waits here for requests.

    Attributes:
        wake: guards the requests. The worker waits on it; whoever has something for the worker to
            do notifies it. A queue's lock may be taken while it is held, never the other way round.
    """

    def __init__(self) -> None:
        self.wake = threading.Condition()
        self._requests: list[Request] = []
        self._closed = False

    def __bool__(self) -> bool:
        return bool(self._requests)

    def ask(self, *, flush: bool, deadline: float) -> Future[Any]:
        """Add a request; any thread.

        Raises:
            RuntimeError: the worker is stopping and takes no more.
        """
        request = Request(flush, deadline, Future())
        # A running future cannot be cancelled by its holder: only an answer settles it.
        request.future.set_running_or_notify_cancel()
        with self.wake:
            if self._closed:
                raise RuntimeError("the exporter is stopped")
            self._requests.append(request)
            self.wake.notify()
        return request.future

    def take(self) -> list[Request]:
        """Remove and return the requests that have not been answered; the caller must answer them."""
        with self.wake:
            requests, self._requests = self._requests, []
        return [request for request in requests if not request.future.done()]

    def expire(self, now: float, problem: str) -> None:
        """Fail the requests whose deadline has passed. The worker, which may hang in a hook, discards them later."""
        with self.wake:
            late = [request for request in self._requests if request.deadline < now]
        for request in late:
            request.answer(TimeoutError(problem))

    def answer_all(self, problem: str) -> None:
        """Answer every waiting request with the same result."""
        for request in self.take():
            request.answer(problem)

    def notify(self) -> None:
        """Wake the worker thread."""
        with self.wake:
            self.wake.notify()

    def close(self) -> None:
        """Accept no more requests and wake the worker, which answers those that wait."""
        with self.wake:
            self._closed = True
            self.wake.notify()
