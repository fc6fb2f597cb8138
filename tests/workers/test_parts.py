"""The parts of which the page of all workers is made: numbers and pages, messages, and the place where processes meet."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from eventcore.exporting import Secret
from eventcore.serving import Access, hash_password
from eventcore.testing import exporter_context
from eventcore_prometheus.naming import ExposedName, Kind
from eventcore_prometheus.page import Family, Page
from eventcore_prometheus.workers import crew, joining, links, place
from eventcore_prometheus.workers.board import KEPT, SHOWN, Board, encode_page
from eventcore_prometheus.workers.links import Ask, Hello, Link, PageSent, decode
from eventcore_prometheus.workers.place import place_of


def page(worker: int, *families: tuple[Kind, str]) -> bytes:
    return encode_page(Page(tuple(family(worker, kind, name) for kind, name in families)))


def family(worker: int, kind: Kind, name: str) -> Family:
    samples = [f'{name}{{worker="{worker}"}} 1\n'.encode()]
    header = f"# TYPE {name} {kind}\n".encode()
    return Family(kind, ExposedName(name, name, ""), "", header, header, samples=samples, openmetrics=samples)


def text(board: Board, *answered: int) -> str:
    return b"".join(board.whole(answered).pieces(openmetrics=False)).decode()


def test_a_number_is_given_again_only_when_the_last_page_of_its_worker_is_forgotten() -> None:
    board = Board()
    assert [board.give(None) for _ in range(3)] == [0, 1, 2]
    board.put(1, page(1, ("counter", "c")))
    board.end(1, now=100.0)
    assert board.give(None) == 3
    board.end(3, now=100.0)  # it has never sent a page, so there is nothing to wait for
    assert board.give(None) == 3
    assert board.expired(100.0 + KEPT - 1) == []
    assert board.next_expiry() == 100.0 + KEPT
    assert board.expired(100.0 + KEPT) == [1]
    board.forget(1)
    assert board.give(None) == 1


def test_the_last_values_of_an_ended_worker_stay_for_a_second_scraper_and_its_end_is_shown_once() -> None:
    board = Board()
    for worker in (0, 1):
        board.put(board.give(None), page(worker, ("counter", "c"), ("gauge", "g")))
    board.end(1, now=100.0)
    first = text(board, 0)
    assert board.not_shown() == [1]
    board.show(1, now=110.0)
    board.show(1, now=115.0)
    second = text(board, 0)
    assert [line for line in first.splitlines() if 'worker="1"' in line] == [
        'c{worker="1"} 1',
        'eventcore_exporters_worker_up{worker="1"} 0',
    ]
    assert [line for line in second.splitlines() if 'worker="1"' in line] == ['c{worker="1"} 1']
    assert board.not_shown() == []
    assert board.give(None) == 2
    assert board.next_expiry() == 110.0 + SHOWN
    assert board.expired(110.0 + SHOWN - 1) == []
    assert board.expired(110.0 + SHOWN) == [1]


def test_a_worker_that_comes_back_to_a_new_holder_keeps_its_number() -> None:
    board = Board()
    for worker in (0, 1, 2):
        board.put(worker, page(worker, ("counter", "c")))
    board.end_all(now=1.0)
    assert [board.give(wanted) for wanted in (2, 1, None)] == [2, 1, 3]
    assert board.not_shown() == [0]
    # Another one that wants a number that is in use gets a new one.
    assert board.give(2) == 4


def test_of_a_worker_that_does_not_answer_only_lasting_values_are_shown() -> None:
    board = Board()
    for worker in (0, 1):
        board.give(None)
        board.put(worker, page(worker, ("counter", "c"), ("gauge", "g"), ("histogram", "h"), ("info", "i")))
    shown = text(board, 0)
    assert [line for line in shown.splitlines() if 'worker="1"' in line] == [
        'c{worker="1"} 1',
        'eventcore_exporters_worker_up{worker="1"} 0',
        'h{worker="1"} 1',
    ]
    assert shown.count("# TYPE c counter") == 1
    assert shown.index('c{worker="0"}') < shown.index('c{worker="1"}') < shown.index("# TYPE g")


def test_one_name_for_two_kinds_shows_the_first_and_a_page_of_another_version_shows_nothing() -> None:
    board = Board()
    board.put(0, page(0, ("counter", "x")))
    board.put(1, page(1, ("gauge", "x"), ("gauge", "y")))
    board.put(2, b"\x00 of another version")
    shown = text(board, 0, 1, 2)
    assert 'x{worker="0"} 1' in shown
    assert 'x{worker="1"}' not in shown
    assert 'y{worker="1"} 1' in shown
    assert 'eventcore_exporters_worker_up{worker="2"} 1' in shown


@pytest.fixture
def pair() -> Iterator[tuple[Link, socket.socket]]:
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        theirs.settimeout(5)
        yield Link(ours), theirs


def test_messages_arrive_whole_however_they_are_cut(pair: tuple[Link, socket.socket]) -> None:
    link, peer = pair
    other = Link(peer)
    link.post(links.Kind.HELLO, Hello("7", "a", None))
    link.post(links.Kind.PAGE, PageSent(3, b"x" * 100_000))
    received: list[tuple[links.Kind, bytes]] = []
    while len(received) < 2:
        received += other.receive()
        link.flush()
    assert decode(received[0][1], Hello) == Hello("7", "a", None)
    assert decode(received[1][1], PageSent) == PageSent(3, b"x" * 100_000)


def number_of(kind: links.Kind, body: bytes) -> int:
    return decode(body, PageSent).number if kind == links.Kind.PAGE else decode(body, Ask).number


def test_a_peer_that_does_not_read_costs_no_more_than_the_newest_message_of_each_kind(pair: tuple[Link, socket.socket]) -> None:
    link, peer = pair
    for number in range(2000):
        link.post(links.Kind.PAGE, PageSent(number, bytes(20_000)))
        link.post(links.Kind.ASK, Ask(number, 1.0))
    assert sum(map(len, link._waiting.values())) < 25_000
    other = Link(peer)
    newest: dict[links.Kind, int] = {}
    while link.pending:
        link.flush()
        for kind, body in other.receive():
            newest[kind] = number_of(kind, body)
    for kind, body in other.receive():
        newest[kind] = number_of(kind, body)
    assert newest == {links.Kind.PAGE: 1999, links.Kind.ASK: 1999}


@pytest.mark.parametrize("sent", [b"\xff\xff\xff\xff\x04", b"\x00\x00\x00\x01\x63x"])
def test_a_peer_that_speaks_otherwise_is_an_error_and_takes_no_memory(pair: tuple[Link, socket.socket], sent: bytes) -> None:
    link, peer = pair
    peer.sendall(sent)
    with pytest.raises(OSError, match=r"does not speak this protocol|unknown kind"):
        link.receive()


def test_what_a_process_has_sent_before_it_was_killed_still_counts(pair: tuple[Link, socket.socket]) -> None:
    link, peer = pair
    other = Link(peer)
    other.post(links.Kind.PAGE, PageSent(0, b"last"))
    peer.close()
    ((_, body),) = link.receive()
    assert decode(body, PageSent).page == b"last"
    with pytest.raises(EOFError):
        link.receive()


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory in which processes may meet."""
    path = tmp_path / "e"
    monkeypatch.setattr(place, "_candidates", lambda: iter([path]))
    monkeypatch.setattr(place, "_LONGEST_DIRECTORY", 500)
    return path


def test_only_equals_meet(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = place_of(9464, "shop")
    assert place_of(9464, "shop") == named
    assert len({named, place_of(9465, "shop"), place_of(9464, "bank"), place_of("unix:/run/x", "shop")}) == 4
    # Without a name, the parent and the program count.
    unnamed = place_of(9464, "")
    assert named[0] not in unnamed
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert place_of(9464, "shop") == named
    assert set(place_of(9464, "")) <= {unnamed[-1]}
    monkeypatch.undo()
    monkeypatch.setattr(place, "_candidates", lambda: iter([directory]))
    monkeypatch.setattr(place, "_LONGEST_DIRECTORY", 500)
    monkeypatch.setattr(sys, "argv", ["another-program"])
    assert not set(place_of(9464, "")) & set(unnamed)
    assert place_of(9464, "shop") == named


def test_only_those_with_the_same_readers_meet(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[place.Place, ...]] = []

    def meet(host: str = "127.0.0.1", access: Access | None = None) -> tuple[place.Place, ...]:
        with contextlib.suppress(LookupError):
            joining.join(
                9464,
                exporter_context(),
                host=host,
                access=access or Access(),
                listen=lambda: pytest.fail("not reached"),
                published=lambda: None,
            )
        return found.pop()

    def stop_here(service: crew.Service) -> None:
        found.append(tuple(service.places))
        raise LookupError

    monkeypatch.setattr(joining, "Workers", stop_here)
    one, two = "a" * 16, "b" * 16
    different = [
        meet(),
        meet(host="0.0.0.0"),  # not bound
        meet(access=Access(tokens=[one])),
        meet(access=Access(tokens=[one, two])),
        meet(access=Access(users={"u": hash_password("p")})),
        meet(access=Access(certificate="a.pem")),
        meet(access=Access(certificate="a.pem", client_ca="ca.pem")),
    ]
    assert len(set(different)) == len(different)
    assert meet() == different[0]
    # The order in which tokens are written, and what wraps them, means nothing.
    assert meet(access=Access(tokens=[Secret(two), one])) == different[3]


def test_a_directory_that_others_can_enter_or_have_made_is_not_used(directory: Path, tmp_path: Path) -> None:
    directory.mkdir(mode=0o755)
    with pytest.raises(OSError, match="is not a directory that only user"):
        place_of(9464, "shop")
    directory.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    directory.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="is not a directory that only user"):
        place_of(9464, "shop")


def test_the_lock_has_one_owner_and_what_killed_processes_have_left_is_removed(directory: Path) -> None:
    (shop,) = place_of(9464, "shop")
    (bank,) = place_of(9464, "bank")
    lock = shop.try_lock()
    assert lock is not None
    assert shop.try_lock() is None
    for path in (bank.lock, bank.socket):
        path.touch()
    shop.remove_abandoned()
    assert sorted(directory.iterdir()) == [shop.lock]
    shop.unlock(lock)
    assert list(directory.iterdir()) == []
    again = shop.try_lock()
    assert again is not None
    shop.unlock(again)
