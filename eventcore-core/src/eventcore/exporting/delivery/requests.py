"""What others ask of a pipeline's worker: a flush, or a metrics cycle now."""

from __future__ import annotations

import threading
from concurrent.futures import Future, InvalidStateError
from typing import final

import msgspec


@final
class Request(msgspec.Struct, eq=False):
    """Somebody waits for a flush (``flush=True``) or for a metrics cycle until ``deadline`` (``time.monotonic``).

    The future gives ``""`` when everything was delivered, else why not.
    """

    flush: bool
    deadline: float
    future: Future[str]

    def answer(self, answer: str | Exception) -> None:
        """Settle the future, unless somebody has done so."""
        try:
            if isinstance(answer, Exception):
                self.future.set_exception(answer)
            else:
                self.future.set_result(answer)
        except InvalidStateError:
            return


class RequestBox:
    """Requests wait here for the worker, which waits here for requests.

    Attributes:
        wake: held while looking at the box, and notified when there is something to do.
    """

    def __init__(self) -> None:
        self.wake = threading.Condition()
        self._requests: list[Request] = []
        self._closed = False

    def __bool__(self) -> bool:
        return bool(self._requests)

    def ask(self, *, flush: bool, deadline: float) -> Future[str]:
        """Leave a request.

        Raises:
            RuntimeError: the worker takes no more.
        """
        request = Request(flush, deadline, Future())
        # From here on only an answer can end it: a cancelled future could not be told apart from one that timed out.
        request.future.set_running_or_notify_cancel()
        with self.wake:
            if self._closed:
                raise RuntimeError("the exporter is stopped")
            self._requests.append(request)
            self.wake.notify()
        return request.future

    def take(self) -> list[Request]:
        """Every request that somebody still waits for; they are the worker's to answer."""
        with self.wake:
            requests, self._requests = self._requests, []
        return [request for request in requests if not request.future.done()]

    def expire(self, now: float, problem: str) -> None:
        """Fail the requests that the worker had no time for."""
        with self.wake:
            late = [request for request in self._requests if request.deadline < now]
        for request in late:
            request.answer(TimeoutError(problem))

    def answer_all(self, problem: str) -> None:
        """Answer everything that waits."""
        for request in self.take():
            request.answer(problem)

    def close(self) -> None:
        """Take no more requests; what waits is still to be answered."""
        with self.wake:
            self._closed = True
            self.wake.notify()
