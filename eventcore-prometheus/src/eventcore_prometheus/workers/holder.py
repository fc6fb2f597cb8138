"""The process that holds the port: takes the pages of the workers, puts them together, and copies them to its successor."""

from __future__ import annotations

import os
import socket
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from math import inf
from typing import Final, final

from eventcore_prometheus.page import Page
from eventcore_prometheus.workers.board import Board, encode_page
from eventcore_prometheus.workers.crew import Crew, Wanted, fail
from eventcore_prometheus.workers.links import Ask, Copy, Forget, Hello, Kind, Link, PageSent, Want, Welcome, Whole, decode
from eventcore_prometheus.workers.place import Place, PlaceError, name_of_process

# Seconds that a scrape waits for workers that have answered the last one; half of a shorter timeout.
_ANSWER_TIME: Final = 1.0
# Seconds that scrapes wait, after a change of the holder, for workers that have not come back.
_RETURN_TIME: Final = 1.0
# Seconds until the next attempt to get the port: soon while a dying process may still have it, later when a stranger has it.
_RETRY_SOON: Final = 0.1
_RETRY_LATER: Final = 1.0
# Seconds after which a port that a dying process has had would be free.
_PORT_TIME: Final = 0.5
# Seconds between two looks at the files of the places, which programs that tidy the directory for temporary files remove when
# they are old.
_TOUCH_INTERVAL: Final = 600.0


@final
@dataclass(slots=True)
class _Gathering:
    """A page of all workers that is being made, for the scrapes that have begun before it."""

    number: int
    scrapes: list[Wanted]
    deadline: float
    wait_until: float
    unanswered: set[Link] = field(default_factory=set[Link])
    answered: set[int] = field(default_factory=set[int])
    own: bool = False


@final
@dataclass(slots=True)
class _Held:
    """A place whose lock this process has: which one of its service, as it was when it was locked."""

    number: int
    place: Place
    lock: int
    listening: socket.socket | None = None


@final
class Holder:
    """The state of the process that has the lock of the service.

    Args:
        crew: what the process has in every state.
        lock: the file descriptor of the lock.
        board: copies of the pages of all workers, if this process is the successor of another holder.
        absent: numbers of the workers that may come back from the former holder.

    Attributes:
        gives_up: why this process cannot be the holder: something else has the port, or the others cannot reach it.
    """

    def __init__(self, crew: Crew, lock: int, board: Board | None, absent: set[int]) -> None:
        self.gives_up: OSError | PlaceError | None = None
        self._crew = crew
        self._board = board if board is not None else Board()
        now = time.monotonic()
        self._board.end_all(now)
        crew.worker = self._board.give(crew.worker)
        self._absent = absent - {crew.worker}
        self._absent_until = now + _RETURN_TIME
        self._held = [_Held(0, crew.places[0], lock)]
        self._links: list[Link] = []
        self._heir: Link | None = None
        self._gathering: _Gathering | None = None
        self._next: list[Wanted] = []
        self._number = 0
        self._begun = now
        self._port_at = now
        self._touch_at = now + _TOUCH_INTERVAL
        self._port_problem = ""
        self._place_problem = ""

    def due(self) -> float:
        """When ``tick`` has something to do."""
        gathering = self._gathering
        times = [self._port_at, self._touch_at, self._crew.push_due() if self._links else inf, self._board.next_expiry()]
        if gathering is not None:
            waiting = gathering.own and (gathering.unanswered or self._absent)
            times.append(min(gathering.deadline, self._wait_until(gathering) if waiting else inf))
        return min(times)

    def tick(self, now: float) -> None:
        """Do what is due."""
        if now >= self._port_at:
            self._open(now)
        if self._links and now >= self._crew.push_due():
            self._crew.push(self._put_own)
        for worker in self._board.expired(now):
            self._forget(worker)
        if now >= self._touch_at:
            self._touch(now)
        if self._gathering is not None:
            self._check(self._gathering, now)

    def want(self, wanted: Wanted) -> None:
        """Make a page of all workers. Scrapes that come while one is made share the next one."""
        self._next.append(wanted)
        if self._gathering is None:
            self._gather()

    def hand_over(self) -> list[Wanted]:
        """Copy the last page of this process to its successor; returns the scrapes that were not answered."""
        page = self._crew.own_page()
        if page is not None:
            self._put_own(page, "")
        gathering, self._gathering = self._gathering, None
        return [*(gathering.scrapes if gathering is not None else ()), *self._next]

    def leave(self) -> None:
        """Let another process become the holder."""
        for held in self._held:
            if held.listening is not None:
                self._crew.unwatch(held.listening)
        for link in tuple(self._links):
            self._crew.drop(link)
        for held in self._held:
            held.place.unlock(held.lock)

    def close_in_child(self) -> None:
        """In a forked child: close the inherited locks, which stay the parent's."""
        for held in self._held:
            os.close(held.lock)

    def _open(self, now: float) -> None:
        """Listen at the port, then for workers. A former holder of the port may need a moment to end."""
        crew = self._crew
        self._port_at = inf
        if crew.service.listen is not None and crew.listener is None:
            try:
                crew.listener = crew.service.listen()
                crew.address = crew.listener.address
            except OSError as error:
                waited = now - self._begun >= _PORT_TIME
                self._port_at = now + (_RETRY_LATER if waited else _RETRY_SOON)
                if waited:
                    if not crew.joined.done():
                        self.gives_up = error
                        return
                    if not self._port_problem:
                        self._port_problem = str(error)
                        crew.service.logger.warning("will try again: %s", error)
                if not crew.joined.done():
                    return
        if self._held[0].listening is None:
            try:
                self._open_places()
            except OSError as error:
                if not crew.joined.done():
                    self.gives_up = PlaceError(str(error))
                    return
                self._port_at = now + _RETRY_LATER
                self._try_again(now, error)
        if crew.listener is not None or crew.service.listen is None:
            if self._port_problem:
                self._port_problem = ""
                crew.service.logger.info("metrics of all workers are served here again")
            if not crew.joined.done():
                crew.joined.set_result(None)

    def _open_places(self) -> None:
        crew = self._crew
        for number in range(len(self._held), len(crew.places)):
            if (lock := crew.try_lock(number)) is not None:
                self._held.append(_Held(number, crew.places[number], lock))
        for held in self._held:
            self._listen_at(held)
        crew.places[0].remove_abandoned()

    def _touch(self, now: float) -> None:
        """Keep the files of the places young, and make them again if they were removed all the same: others look for them."""
        self._touch_at = now + _TOUCH_INTERVAL
        for held in self._held:
            if held.listening is not None and held.place.touch():
                continue
            try:
                self._repair(held)
            except OSError as error:
                self._try_again(now, error)

    def _try_again(self, now: float, error: OSError) -> None:
        """Serve the page, and make the places later."""
        self._touch_at = now + _RETRY_LATER
        if str(error) != self._place_problem:
            self._place_problem = str(error)
            self._crew.service.logger.warning("other workers cannot join, will try again: %s", error)

    def _repair(self, held: _Held) -> None:
        """Make the files of a place again. The old lock is kept until there is a new one."""
        crew = self._crew
        if not held.place.lock.exists():
            if (lock := crew.try_lock(held.number)) is None:
                raise OSError(f"another process has locked {crew.places[held.number].lock}")
            os.close(held.lock)
            held.lock, held.place = lock, crew.places[held.number]
        self._listen_at(held)

    def _listen_at(self, held: _Held) -> None:
        before, held.listening = held.listening, held.place.listen()
        if before is not None:
            self._crew.unwatch(before)
        self._crew.watch(held.listening, self._accept)

    def _accept(self, connection: socket.socket) -> None:
        self._crew.connect(connection, self._handle, self._lost)

    def _handle(self, link: Link, kind: Kind, body: bytes) -> None:
        match kind:
            case Kind.HELLO:
                self._welcome(link, decode(body, Hello))
            case Kind.PAGE:
                self._take(link, decode(body, PageSent))
            case Kind.WANT:
                self._answer(link, decode(body, Want))
            case _:
                raise OSError(f"a worker does not send {kind.name}")

    def _welcome(self, link: Link, hello: Hello) -> None:
        crew = self._crew
        assert crew.worker is not None
        for earlier in tuple(self._links):
            if earlier.exporter == hello.exporter or (earlier.process == hello.process and earlier.ended()):
                self._crew.drop(earlier)  # its connection broke, and this process has not noticed yet
        # One that was welcome before stays welcome to a new holder: nobody would tell its application that it ended.
        if hello.worker is None and hello.process in (name_of_process(), *(earlier.process for earlier in self._links)):
            problem = "another exporter of the same process has this port"
            crew.send(link, Kind.WELCOME, Welcome(0, crew.worker, problem=problem))
            return
        link.process, link.exporter = hello.process, hello.exporter
        link.worker = self._board.give(hello.worker)
        self._absent.discard(link.worker)
        self._links.append(link)
        crew.send(link, Kind.WELCOME, Welcome(link.worker, crew.worker, *(crew.address or ("", 0))))
        if self._gathering is not None:
            self._ask(link, self._gathering)
        if self._heir is None:
            self._choose_heir()

    def _lost(self, link: Link) -> None:
        if link not in self._links:
            return
        assert link.worker is not None
        self._links.remove(link)
        self._board.end(link.worker, time.monotonic())
        if link is self._heir:
            self._choose_heir()
        else:
            self._copy(link.worker)
        if self._gathering is not None:
            self._gathering.unanswered.discard(link)

    def _choose_heir(self) -> None:
        self._heir = next(iter(self._links), None)
        if self._heir is not None:
            for worker in self._board.workers():
                self._copy(worker)

    def _copy(self, worker: int) -> None:
        """Give the successor what is known of a worker; of itself it knows more."""
        if self._heir is not None and self._heir.worker != worker and (page := self._board.page(worker)) is not None:
            self._crew.send(self._heir, Kind.COPY, self._copy_of(worker, page), worker)

    def _copy_of(self, worker: int, page: bytes) -> Copy:
        return Copy(worker, not self._board.ended(worker), page, shown=self._board.shown(worker))

    def _forget(self, worker: int) -> None:
        self._board.forget(worker)
        if self._heir is not None:
            # As one of the copies: it must come after the last one of this worker, and replace it if it waits.
            self._crew.send(self._heir, Kind.FORGET, Forget(worker), worker)

    def _take(self, link: Link, sent: PageSent) -> None:
        if link.worker is None:
            raise OSError("a worker sends its page before it says who it is")
        gathering = self._gathering
        if sent.page is not None:
            link.late = False
            self._board.put(link.worker, sent.page)
            self._copy(link.worker)
        if gathering is not None and sent.number == gathering.number:
            gathering.unanswered.discard(link)
            if sent.page is not None:
                gathering.answered.add(link.worker)

    def _put_own(self, page: bytes | None, _problem: str) -> None:
        assert self._crew.worker is not None
        if page is not None:
            self._board.put(self._crew.worker, page)
            self._copy(self._crew.worker)

    def _answer(self, link: Link, want: Want) -> None:
        made: Future[Page] = Future()

        def ended(made: Future[Page]) -> None:
            error = made.exception()
            answer = (
                Whole(want.number, None, str(error)) if error is not None else Whole(want.number, encode_page(made.result()))
            )
            self._crew.send(link, Kind.WHOLE, answer, want.number)

        made.add_done_callback(ended)
        self.want(Wanted(made, time.monotonic() + want.timeout))

    def _gather(self) -> None:
        now = time.monotonic()
        scrapes, self._next = self._next, []
        timeout = max(scrape.deadline for scrape in scrapes) - now
        self._number += 1
        gathering = self._gathering = _Gathering(
            self._number, scrapes, now + timeout, now + min(_ANSWER_TIME, max(timeout, 0.0) / 2)
        )
        for link in self._links:
            self._ask(link, gathering)

        def exported(page: bytes | None, problem: str) -> None:
            self._put_own(page, "")
            if self._gathering is not gathering:
                return
            if page is None:
                self._end(gathering, RuntimeError(problem))
                return
            assert self._crew.worker is not None
            gathering.own = True
            gathering.answered.add(self._crew.worker)

        self._crew.export(max(timeout, 0.001), exported)

    def _ask(self, link: Link, gathering: _Gathering) -> None:
        if not link.late:
            gathering.unanswered.add(link)
        self._crew.send(link, Kind.ASK, Ask(gathering.number, max(gathering.wait_until - time.monotonic(), 0.1)))

    def _wait_until(self, gathering: _Gathering) -> float:
        return max(gathering.wait_until, self._absent_until if self._absent else 0.0)

    def _check(self, gathering: _Gathering, now: float) -> None:
        if gathering.own and (now >= self._wait_until(gathering) or not (gathering.unanswered or self._absent)):
            for link in self._links:
                link.late = link.worker not in gathering.answered
            page = self._board.whole(gathering.answered)
            for worker in self._board.not_shown():
                self._board.show(worker, now)
                self._copy(worker)
            self._end(gathering, page)
        elif now >= gathering.deadline:
            self._end(gathering, TimeoutError("this process has made no page of its own in time"))

    def _end(self, gathering: _Gathering, outcome: Page | Exception) -> None:
        self._gathering = None
        for scrape in gathering.scrapes:
            if isinstance(outcome, Page):
                scrape.page.set_result(outcome)
            else:
                fail(scrape, outcome)
        if self._next:
            self._gather()
