"""A process among the processes of one service: it holds the port and puts pages together, or sends its page to the holder.

One thread does all of it, and never waits for another process. A process is in one of three states:

* *seeking*: it tries to take the lock of the service (and becomes the holder), else to reach the holder (and becomes a worker);
* *holder*: it listens at the port, takes the pages of the workers, and copies all pages to one of them, its successor;
* *worker* (`Member`): it sends its page each second and when the holder asks. When the holder ends, it seeks again, and the
  successor is the first to try the lock.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import Final, final

from eventcore.serving import Listener
from eventcore_prometheus.page import Page
from eventcore_prometheus.workers.board import Board
from eventcore_prometheus.workers.crew import Crew, Service, Wanted, fail
from eventcore_prometheus.workers.holder import Holder
from eventcore_prometheus.workers.member import Member, Seeking
from eventcore_prometheus.workers.place import PlaceError

# Seconds in which a process must have found its state.
_JOIN_TIME: Final = 5.0
# Seconds that other workers leave to the successor.
_PRECEDENCE: Final = 0.3
# Seconds that the last page may take to reach the holder, or its successor.
_HAND_OVER_TIME: Final = 0.5
# A selector cannot wait for ever.
_LONGEST_WAIT: Final = 60.0
# Seconds before going on after a fault of this code, so that it cannot use a whole core.
_PAUSE: Final = 0.1


@final
class RefusedError(Exception):
    """The processes of the service cannot take this one: another exporter of this process is one of them."""


@final
class Workers:
    """What one process does for the processes of its service, from ``join`` to ``close``."""

    def __init__(self, service: Service) -> None:
        self._crew = Crew(service)
        self._state: Seeking | Holder | Member = Seeking(self._crew, 0.0)
        # Scrapes that came while the process was seeking.
        self._waiting: list[Wanted] = []
        # What a holder that has ended had given to this process as its successor.
        self._copies: Board | None = None
        self._absent: set[int] = set()
        self._problem = ""
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="eventcore-prometheus-workers", daemon=True)

    @property
    def worker(self) -> int | None:
        """The number of this process."""
        return self._crew.worker

    @property
    def address(self) -> tuple[str, int] | None:
        """Where the page of all workers is served; ``None`` when that is not known."""
        return self._crew.address

    @property
    def listener(self) -> Listener | None:
        """The listener, if this process is the holder."""
        return self._crew.listener

    def join(self) -> None:
        """Become the holder or a worker.

        Raises:
            OSError: the port is taken by something else, or the holder does not answer.
            PlaceError: the processes of the service cannot meet.
            RefusedError: another exporter of this process is the holder or a worker.
        """
        self._thread.start()
        try:
            self._crew.joined.result(_JOIN_TIME)
        except TimeoutError:
            self.close(0.0)
            raise OSError("the process of this service that holds the port does not answer; is it frozen?") from None
        except BaseException:
            self.close(0.0)
            raise

    def gather(self, timeout: float) -> Future[Page]:
        """The page of all workers, within ``timeout`` seconds. Safe to call from any thread."""
        wanted = Wanted(Future(), time.monotonic() + timeout)
        wanted.page.set_running_or_notify_cancel()
        self._crew.call(lambda: self._want(wanted))
        return wanted.page

    def close(self, timeout: float) -> None:
        """Leave within ``timeout`` seconds: let scrapes end, close the port, and hand over the last page."""
        deadline = time.monotonic() + timeout
        listener = self._crew.listener
        if listener is not None:
            listener.close(timeout * 0.8)
        self._crew.call(self._stop)
        self._thread.join(max(deadline - time.monotonic(), 0.0) + _PAUSE)

    def close_in_child(self) -> None:
        """In a forked child: close what belongs to the parent."""
        if isinstance(self._state, Holder):
            self._state.close_in_child()
        self._crew.close(in_child=True)

    def _want(self, wanted: Wanted) -> None:
        if self._stopping:
            fail(wanted, RuntimeError("the exporter was stopped"))
        elif isinstance(self._state, Seeking):
            self._waiting.append(wanted)
        else:
            self._state.want(wanted)

    def _stop(self) -> None:
        self._stopping = True

    def _run(self) -> None:
        crew = self._crew
        while not self._stopping:
            try:
                self._tick(time.monotonic())
                crew.step(min(self._state.due(), time.monotonic() + _LONGEST_WAIT))
            except Exception:
                # A fault here must not end the page of all workers for good.
                crew.service.logger.warning("internal error", exc_info=True)
                time.sleep(_PAUSE)
        try:
            self._end()
        except Exception:
            crew.service.logger.warning("internal error", exc_info=True)
        finally:
            if crew.listener is not None:
                # Closed before, unless this process became the holder while it was closed.
                crew.listener.close(0.0)
            crew.close()

    def _end(self) -> None:
        state, crew = self._state, self._crew
        waiting = [*self._waiting, *(state.hand_over() if not isinstance(state, Seeking) else ())]
        for wanted in waiting:
            fail(wanted, RuntimeError("the exporter was stopped"))
        deadline = time.monotonic() + _HAND_OVER_TIME
        while crew.unsent() and time.monotonic() < deadline:
            crew.step(deadline)
        if not isinstance(state, Seeking):
            state.leave()

    def _tick(self, now: float) -> None:
        state = self._state
        if isinstance(state, Seeking):
            self._seek(state, now)
            return
        state.tick(now)
        if isinstance(state, Holder):
            if state.gives_up is not None:
                self._refuse(state.gives_up)
        elif state.refused:
            self._refuse(RefusedError(state.refused))
        elif state.lost:
            self._waiting += state.hand_over()
            # A holder that is just ending may still accept a connection: what the one before had given stays valid then.
            if state.welcome:
                self._copies, self._absent = state.copies, state.absent
            self._state = Seeking(self._crew, now if self._copies is not None else now + _PRECEDENCE)

    def _seek(self, state: Seeking, now: float) -> None:
        for wanted in [wanted for wanted in self._waiting if now >= wanted.deadline]:
            self._waiting.remove(wanted)
            fail(wanted, TimeoutError("no process holds the port yet"))
        if now < state.due():
            return
        try:
            lock = state.try_lock(now)
        except OSError as error:
            if not self._crew.joined.done():
                self._refuse(PlaceError(str(error)))
                return
            lock = None
            state.wait(now)
            if str(error) != self._problem:
                self._problem = str(error)
                self._crew.service.logger.warning("the port cannot be taken over, will try again: %s", error)
        if lock is not None:
            self._state = Holder(self._crew, lock, self._copies, self._absent)
        elif (connection := state.try_connect()) is not None:
            self._state = Member(self._crew, connection)
        else:
            return
        waiting, self._waiting = self._waiting, []
        for wanted in waiting:
            self._state.want(wanted)

    def _refuse(self, error: Exception) -> None:
        self._stopping = True
        if not self._crew.joined.done():
            self._crew.joined.set_exception(error)
