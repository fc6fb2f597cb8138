"""The eventsourcing library as its documentation shows it: get an aggregate, call it, save it, in several threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from time import perf_counter, process_time
from typing import Any, Final, final
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

from benchmarks.contenders import Streams, Turn
from benchmarks.postgres_server import MeasuredServer

__all__ = ["LibraryContender"]

_LINES: Final = 10


class _Order(Aggregate):
    @event("Opened")
    def __init__(self, number: int, item: str, price: int) -> None:
        self.lines = 1

    @event("ItemAdded")
    def add_item(self, number: int, item: str, price: int) -> None:
        self.lines += 1

    @event("ItemRemoved")
    def remove_item(self, number: int, item: str, price: int) -> None:
        self.lines += 1


class _Orders(Application[UUID]):
    """The first command for a stream creates the aggregate without reading the database."""

    def add_item(self, order: UUID | None) -> UUID:
        if order is None:
            new = _Order(number=1, item="lamp", price=4_900)
            self.save(new)
            return new.id
        found: _Order = self.repository.get(order)
        found.add_item(number=found.lines + 1, item="lamp", price=4_900)
        self.save(found)
        return order

    def move_item(self, pair: tuple[UUID, UUID] | None) -> tuple[UUID, UUID]:
        if pair is None:
            source, target = (_Order(number=1, item="lamp", price=4_900) for _ in range(2))
        else:
            source, target = (self.repository.get(one) for one in pair)
            source.remove_item(number=source.lines + 1, item="lamp", price=4_900)
            target.add_item(number=target.lines + 1, item="lamp", price=4_900)
        self.save(source, target)
        return source.id, target.id


@final
class LibraryContender:
    """Threads of one process. Each executes one command at a time.

    Args:
        tuned: whether to use settings that made it faster than its defaults.
    """

    concurrency = (1, 16, 64, 256)

    def __init__(self, server: MeasuredServer, warm_up: float, *, tuned: bool) -> None:
        self.name = "eventsourcing, tuned" if tuned else "eventsourcing"
        self._tuned = tuned
        self._server = server
        self._warm_up = warm_up
        # The table is named after the class of the application.
        self._databases = {streams: server.database("_orders_events") for streams in (1, 2)}

    def turn(self, streams: Streams, concurrency: int, seconds: float) -> Turn:
        """See ``Contender``."""
        database = self._databases[streams]
        before, server_cpu = database.settle(), self._server.cpu_seconds()
        application = _Orders(env=self._settings(database.name))
        command = application.add_item if streams == 1 else application.move_item
        begin = perf_counter() + self._warm_up
        end = begin + seconds

        def send(_: int) -> list[tuple[float, float]]:
            done: list[tuple[float, float]] = []
            key: Any = None
            while (sent := perf_counter()) < end:
                key = command(key if len(done) % _LINES else None)
                done.append((sent, perf_counter()))
            return done

        cpu = process_time()
        with ThreadPoolExecutor(concurrency) as senders:
            done = [one for of_sender in senders.map(send, range(concurrency)) for one in of_sender]
        seconds = perf_counter() - begin
        cpu, server_cpu = process_time() - cpu, self._server.cpu_seconds() - server_cpu
        application.close()
        database.verify(before, streams * len(done))
        return Turn.of([ended - sent for sent, ended in done if ended >= begin], seconds, len(done), cpu, server_cpu)

    def _settings(self, database: str) -> dict[str, str]:
        """The default settings (a pool of 5 connections, and 10 more when needed), or the tuned ones."""
        tuning = {
            # Each save is one function call, instead of several statements under a table lock.
            "POSTGRES_ENABLE_DB_FUNCTIONS": "y",
            # Aggregates stay in memory; a get reads only new events.
            "AGGREGATE_CACHE_MAXSIZE": "1000",
        }
        return {
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_DBNAME": database,
            "POSTGRES_HOST": "127.0.0.1",
            "POSTGRES_PORT": str(self._server.port),
            "POSTGRES_USER": "postgres",
            "POSTGRES_PASSWORD": self._server.password,
            **(tuning if self._tuned else {}),
        }
