"""A process that sends its page to the holder, and one that looks for the holder."""

from __future__ import annotations

import socket
import time
from math import inf
from typing import Final, final

from eventcore_prometheus.workers.board import Board, decode_page
from eventcore_prometheus.workers.crew import Crew, Wanted, fail
from eventcore_prometheus.workers.links import Ask, Copy, Forget, Hello, Kind, Link, PageSent, Want, Welcome, Whole, decode
from eventcore_prometheus.workers.place import name_of_process

# Seconds between two attempts to become the holder, or to reach it.
_SEEK_INTERVAL: Final = 0.05
# Seconds before the next one when the directory of the lock cannot be used.
_RETRY_INTERVAL: Final = 0.5


@final
class Seeking:
    """The state of a process that has no holder: it takes the lock of the service, or connects to the process that has it.

    Args:
        crew: what the process has in every state.
        lock_from: when this process may try to take the lock (``time.monotonic``); later than the
            successor of a holder that has ended.
    """

    def __init__(self, crew: Crew, lock_from: float) -> None:
        self._crew = crew
        self._lock_from = lock_from
        self._due = 0.0

    def due(self) -> float:
        """When ``tick`` has something to do."""
        return self._due

    def try_lock(self, now: float) -> int | None:
        """The file descriptor of the lock, if this process is now the holder."""
        self._due = now + _SEEK_INTERVAL
        return self._crew.try_lock(0) if now >= self._lock_from else None

    def wait(self, now: float) -> None:
        """Try again later: the lock cannot be used."""
        self._due = now + _RETRY_INTERVAL

    def try_connect(self) -> socket.socket | None:
        """A connection to the holder, if there is one that accepts it."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            connection.connect(str(self._crew.places[0].socket))
        except OSError:  # not there yet, or there no more
            connection.close()
            return None
        return connection


@final
class Member:
    """The state of a process that is connected to the holder.

    Attributes:
        copies: the pages of all workers, if the holder has made this process its successor.
        absent: numbers of the workers that the holder had when it ended.
        refused: why the holder does not want this process.
        lost: whether the connection has ended.
        welcome: whether the holder has given this process its number.
    """

    def __init__(self, crew: Crew, connection: socket.socket) -> None:
        self._crew = crew
        self.copies: Board | None = None
        self.refused = ""
        self.lost = False
        self.welcome = False
        self._holder: int | None = None
        self._number = 0
        self._wanted: dict[int, Wanted] = {}
        self._link = crew.connect(connection, self._handle, self._lose)
        crew.send(self._link, Kind.HELLO, Hello(name_of_process(), crew.exporter, crew.worker))

    @property
    def absent(self) -> set[int]:
        """The workers, beside this process, that a new holder may expect."""
        board = self.copies
        return (
            {worker for worker in board.workers() if not board.ended(worker)} - {self._holder} if board is not None else set()
        )

    def due(self) -> float:
        """When ``tick`` has something to do."""
        deadlines = min((wanted.deadline for wanted in self._wanted.values()), default=inf)
        return min(deadlines, self._crew.push_due() if self.welcome else inf)

    def tick(self, now: float) -> None:
        """Do what is due."""
        if self.welcome and now >= self._crew.push_due():
            self._crew.push(lambda page, _: self._send(0, page))
        for number, wanted in list(self._wanted.items()):
            if now >= wanted.deadline:
                del self._wanted[number]
                fail(wanted, TimeoutError("the process that holds the port did not answer"))

    def want(self, wanted: Wanted) -> None:
        """Ask the holder for the page of all workers."""
        self._number += 1
        self._wanted[self._number] = wanted
        if self.welcome:
            self._ask(self._number, wanted)

    def hand_over(self) -> list[Wanted]:
        """Send the last page of this process; returns the scrapes that were not answered."""
        if self.welcome and not self.lost and (page := self._crew.own_page()) is not None:
            self._send(0, page)
        return list(self._wanted.values())

    def leave(self) -> None:
        """End the connection."""
        self._crew.drop(self._link)

    def _handle(self, link: Link, kind: Kind, body: bytes) -> None:
        match kind:
            case Kind.WELCOME:
                self._take_number(decode(body, Welcome))
            case Kind.ASK:
                ask = decode(body, Ask)
                self._crew.export(ask.timeout, lambda page, _: self._send(ask.number, page))
            case Kind.WHOLE:
                self._take_whole(decode(body, Whole))
            case Kind.COPY:
                copy = decode(body, Copy)
                self.copies = self.copies if self.copies is not None else Board()
                self.copies.put(copy.worker, copy.page)
                if not copy.live:
                    self.copies.end(copy.worker, time.monotonic())
                if copy.shown:
                    self.copies.show(copy.worker, time.monotonic())
            case Kind.FORGET:
                if self.copies is not None:
                    self.copies.forget(decode(body, Forget).worker)
            case _:
                raise OSError(f"a holder does not send {kind.name}")

    def _take_number(self, welcome: Welcome) -> None:
        if welcome.problem:
            self.refused = welcome.problem
            return
        crew = self._crew
        crew.worker, self._holder = welcome.worker, welcome.holder
        crew.address = (welcome.host, welcome.port) if welcome.host else None
        self.welcome = True
        crew.push_soon()
        if not crew.joined.done():
            crew.joined.set_result(None)
        for number, wanted in self._wanted.items():
            self._ask(number, wanted)

    def _ask(self, number: int, wanted: Wanted) -> None:
        timeout = max(wanted.deadline - time.monotonic(), 0.001)
        self._crew.send(self._link, Kind.WANT, Want(number, timeout), number)

    def _take_whole(self, whole: Whole) -> None:
        wanted = self._wanted.pop(whole.number, None)
        if wanted is None:
            return
        if whole.page is None:
            fail(wanted, RuntimeError(whole.problem))
        else:
            wanted.page.set_result(decode_page(whole.page))

    def _send(self, number: int, page: bytes | None) -> None:
        if not self.lost:
            # Answers to scrapes replace waiting pages, too: only the newest page matters.
            self._crew.send(self._link, Kind.PAGE, PageSent(number, page))

    def _lose(self, link: Link) -> None:
        self.lost = True
