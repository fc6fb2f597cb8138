"""What the states of a process share: its number, its own page, its timers, and the connections of its one thread."""

from __future__ import annotations

import contextlib
import logging
import secrets
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, final

import msgspec

from eventcore.serving import Listener
from eventcore_prometheus.page import Page
from eventcore_prometheus.workers.board import encode_page
from eventcore_prometheus.workers.links import Kind, Link
from eventcore_prometheus.workers.place import Place

PUSH_INTERVAL: Final = 1.0
"""Seconds between two pages of a worker; what it records after its last one is lost when it is killed."""

# Pages that take long to make are made less often, so that making them takes at most half of the time.
_SHARE: Final = 0.5


@final
@dataclass(slots=True, eq=False)
class Wanted:
    """A scrape that waits for the page of all workers until ``deadline`` (``time.monotonic``)."""

    page: Future[Page]
    deadline: float


@final
@dataclass(frozen=True, slots=True)
class Service:
    """What the exporter does for its workers.

    Attributes:
        places: where the processes of the service meet.
        listen: binds the port; ``None`` if there is none.
        export: begins a cycle that takes at most the given seconds.
        published: the page of the last cycle, and the number of the worker that is written on it.
    """

    places: Sequence[Place]
    listen: Callable[[], Listener] | None
    export: Callable[[float], Future[None]]
    published: Callable[[], tuple[int | None, Page] | None]
    logger: logging.Logger


class Crew:
    """Everything here belongs to the thread of ``Workers``, except for ``call``.

    Attributes:
        places: where the processes of the service meet.
        exporter: tells the exporters of one process apart; it stays when the connection to the holder is made anew.
        worker: the number of this process; ``None`` until it has found its state.
        address: where the page of all workers is served; ``None`` until that is known.
        listener: the listener, while this process is the holder.
        joined: done when this process has found its state for the first time.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.places = list(service.places)
        self.exporter = secrets.token_hex(8)
        self.worker: int | None = None
        self.address: tuple[str, int] | None = None
        self.listener: Listener | None = None
        self.joined: Future[None] = Future()
        self._selector = selectors.DefaultSelector()
        self._handlers: dict[Link, Callable[[Kind, bytes], None]] = {}
        self._lost: dict[Link, Callable[[], None]] = {}
        self._events: dict[Link, int] = {}
        # What other threads want done. A byte to the waker makes the thread look.
        self._calls: deque[Callable[[], None]] = deque()
        self._waker, self._woken = socket.socketpair()
        for each in (self._waker, self._woken):
            each.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, self._wake)
        self._encoded: tuple[Page | None, bytes] = (None, b"")
        self._pushing = False
        self._push_at = 0.0

    def try_lock(self, number: int) -> int | None:
        """Take the lock of a place. If somebody has removed its directory, all processes find the same new one.

        Raises:
            OSError: no directory can be used.
        """
        try:
            return self.places[number].try_lock()
        except FileNotFoundError:
            self.places[number] = self.places[number].moved()
            return self.places[number].try_lock()

    def call(self, work: Callable[[], None]) -> None:
        """Let the thread do ``work``. Safe to call from any thread."""
        self._calls.append(work)
        with contextlib.suppress(OSError):  # full, so it will wake anyway; or closed
            self._waker.send(b"\0")

    def watch(self, listening: socket.socket, accept: Callable[[socket.socket], None]) -> None:
        """Call ``accept`` with each connection that arrives."""

        def arrived() -> None:
            try:
                connection, _ = listening.accept()
            except BlockingIOError:
                return
            except OSError:
                # Out of file descriptors, for example: accepting again at once would use a whole core.
                time.sleep(0.05)
                return
            accept(connection)

        self._selector.register(listening, selectors.EVENT_READ, arrived)

    def connect(
        self, connection: socket.socket, handle: Callable[[Link, Kind, bytes], None], lost: Callable[[Link], None]
    ) -> Link:
        """Take over a connection: ``handle`` is called with each message, and ``lost`` once when it has ended."""
        link = Link(connection)
        self._handlers[link] = lambda kind, body: handle(link, kind, body)
        self._lost[link] = lambda: lost(link)
        self._events[link] = selectors.EVENT_READ
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._receive(link))
        return link

    def send(self, link: Link, kind: Kind, message: msgspec.Struct, about: object = None) -> None:
        """Send a message; if the peer has ended, it will be noticed by the next look at the connection."""
        with contextlib.suppress(OSError):
            link.post(kind, message, about)

    def drop(self, link: Link) -> None:
        """Close a connection, and say so to its owner."""
        if (lost := self._lost.pop(link, None)) is None:
            return
        del self._handlers[link], self._events[link]
        self._selector.unregister(link.socket)
        link.close()
        lost()

    def unwatch(self, listening: socket.socket) -> None:
        """Stop accepting."""
        self._selector.unregister(listening)
        listening.close()

    def step(self, until: float) -> None:
        """Wait until ``until`` (``time.monotonic``) for something to happen, and handle what has."""
        for link, events in self._events.items():
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.pending else 0)
            if wanted != events:
                self._events[link] = wanted
                self._selector.modify(link.socket, wanted, lambda link=link: self._receive(link))
        for key, _ in self._selector.select(max(until - time.monotonic(), 0.0)):
            # Not if what came before has closed it.
            if (watched := self._selector.get_map().get(key.fd)) is not None and watched.fileobj is key.fileobj:
                key.data()
        while self._calls:
            self._calls.popleft()()

    def unsent(self) -> bool:
        """Whether a message waits for a peer to take it."""
        return any(link.pending for link in self._events)

    def export(self, timeout: float, done: Callable[[bytes | None, str], None]) -> None:
        """Make a page of this process, and call ``done`` with it, or with ``None`` and the reason why there is none."""
        try:
            cycle = self.service.export(timeout)
        except RuntimeError as error:  # the exporter is being stopped
            done(None, str(error))
            return
        cycle.add_done_callback(lambda cycle: self.call(lambda: self._exported(cycle, done)))

    def own_page(self) -> bytes | None:
        """The page of the last cycle, encoded; ``None`` if there is none with the number that this process has now."""
        published = self.service.published()
        if published is None or published[0] != self.worker:
            return None
        if self._encoded[0] is not published[1]:
            self._encoded = (published[1], encode_page(published[1]))
        return self._encoded[1]

    def push_due(self) -> float:
        """When the next page is due that nobody has asked for."""
        return float("inf") if self._pushing else self._push_at

    def push(self, done: Callable[[bytes | None, str], None]) -> None:
        """Make the page that is due, and plan the next one."""
        self._pushing, begun = True, time.monotonic()

        def ended(page: bytes | None, problem: str) -> None:
            now = time.monotonic()
            self._pushing, self._push_at = False, max(begun + PUSH_INTERVAL, now + (now - begun) * (1 / _SHARE - 1))
            done(page, problem)

        self.export(PUSH_INTERVAL, ended)

    def push_soon(self) -> None:
        """Let the next page be due at once."""
        self._push_at = 0.0

    def close(self, *, in_child: bool = False) -> None:
        """Close all connections. In a forked child nobody is told, and the parent's connections go on."""
        if in_child and self.listener is not None:
            self.listener.close_in_child()
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._waker.close()
        self._selector.close()

    def _exported(self, cycle: Future[None], done: Callable[[bytes | None, str], None]) -> None:
        error = cycle.exception()
        if error is not None:
            done(None, str(error) or type(error).__name__)
            return
        page = self.own_page()
        done(page, "" if page is not None else "the cycle has published no page")

    def _receive(self, link: Link) -> None:
        try:
            link.flush()
            for kind, body in link.receive():
                if link in self._handlers:
                    self._handlers[link](kind, body)
        except (OSError, EOFError) as error:
            self.service.logger.debug("worker %s: %s", link.worker, error)
            self.drop(link)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass


def fail(wanted: Wanted, error: Exception) -> None:
    """Tell a scrape that there is no page for it."""
    if not wanted.page.done():
        wanted.page.set_exception(error)
