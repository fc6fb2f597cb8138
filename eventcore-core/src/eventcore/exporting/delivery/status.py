"""What the worker thread of a pipeline and other threads know and ask of each other."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from concurrent.futures import Future, InvalidStateError
from math import inf
from typing import Final, final

from eventcore.exporting.ambient import GuardedAmbient
from eventcore.exporting.context import Signal
from eventcore.exporting.delivery.report import CycleStats

STOPPED: Final = "the exporter is stopped"


@final
class Request(Future[None]):
    """A caller waits for a flush (``flush=True``) or for a metrics cycle until ``deadline`` (``time.monotonic``).

    The future gives ``None`` when everything was delivered. It fails with ``RuntimeError``, which
    says why not, or with ``TimeoutError`` when the worker had no time.
    """

    def __init__(self, *, flush: bool, deadline: float) -> None:
        super().__init__()
        self.flush = flush
        self.deadline = deadline
        # A running future cannot be cancelled by its holder: only an answer settles it.
        self.set_running_or_notify_cancel()

    def answer(self, problem: str, error: type[Exception] = RuntimeError) -> None:
        """Settle the future, unless it is settled: the worker, and the distributor that fails late requests, may both try."""
        with contextlib.suppress(InvalidStateError):
            if problem:
                self.set_exception(error(problem))
            else:
                self.set_result(None)


@final
class PipelineStatus:
    """How a pipeline does, and the requests that wait for its worker thread.

    The worker thread writes ``started``, ``finished``, ``cycles``, ``ambient`` and the errors, and
    any thread reads them. Each assignment replaces a whole value, so that no lock is needed. Every
    method may be called from any thread.

    Attributes:
        wake: guards ``requests``. The worker waits on it, and every thread that has something for
            the worker to do notifies it. A queue's lock may be taken while it is held, never the
            other way round.
        requests: what the worker has not yet taken. Testing whether there are any needs no lock.
        started: set when the exporter's ``start`` hook has returned.
        stopping: set when the worker is to stop; the exporter sees it as ``context.stopping``.
        stop_deadline: when the worker must have shut the exporter down (``time.monotonic``).
        finished: set when the worker thread has nothing more to do.
        cycles: the counters of each signal that the exporter takes.
        ambient: the other tracing system that the exporter's ``ambient_context`` connects.
        start_error: why the exporter has not started yet.
        refusal: why new requests fail at once; empty while they are accepted.
        final_error: why not everything was delivered at the end.
        said_hanging: whether a record names the hook that was awaited in vain at the end.
    """

    def __init__(self, signals: Iterable[Signal]) -> None:
        self.wake = threading.Condition()
        self.requests: list[Request] = []
        self.started = threading.Event()
        self.stopping = threading.Event()
        self.stop_deadline = inf
        self.finished = threading.Event()
        self.cycles: dict[Signal, CycleStats] = {signal: CycleStats() for signal in signals}
        self.ambient: GuardedAmbient | None = None
        self.start_error = ""
        self.refusal = ""
        self.final_error = ""
        self.said_hanging = False

    def not_taken(self, signal: Signal) -> bool:
        """Whether the backend does not take this signal at all, but may take another one."""
        return self.cycles[signal].unsupported and not all(stats.unsupported for stats in self.cycles.values())

    def ask(self, *, flush: bool, deadline: float) -> Request:
        """Make a request of the worker. It fails at once while the pipeline is stopping or waits before its next start."""
        request = Request(flush=flush, deadline=deadline)
        # Under the lock: the worker answers the requests that wait after it has seen `stopping`, and
        # so misses none that was added before.
        with self.wake:
            if problem := STOPPED if self.stopping.is_set() else self.refusal:
                request.answer(problem)
            else:
                self.requests.append(request)
                self.wake.notify()
        return request

    def take(self) -> list[Request]:
        """Remove and return the requests that have not been answered; the caller must answer them."""
        with self.wake:
            requests, self.requests = self.requests, []
        return [request for request in requests if not request.done()]

    def answer_all(self, problem: str) -> None:
        """Answer every waiting request with the same result."""
        for request in self.take():
            request.answer(problem)

    def expire(self, now: float, problem: str) -> None:
        """Fail the requests whose deadline has passed. The worker, which may hang in a hook, discards them later."""
        with self.wake:
            late = [request for request in self.requests if request.deadline < now]
        for request in late:
            request.answer(problem, TimeoutError)

    def notify(self) -> None:
        """Wake the worker thread."""
        with self.wake:
            self.wake.notify()

    def is_ending(self) -> bool:
        """Whether the exporter takes nothing new: it is to stop, or it has stopped."""
        return self.stopping.is_set() or self.finished.is_set()

    def stop(self, deadline: float) -> None:
        """Ask the worker to deliver what it has and to shut the exporter down by ``deadline`` (``time.monotonic``).

        A second call can only make the deadline earlier.
        """
        # In this order: a worker that sees `stopping` reads the deadline.
        self.stop_deadline = min(self.stop_deadline, deadline)
        self.stopping.set()
        self.notify()
