"""A read model: where each aircraft is, and the flights of each airport by hour. A projection keeps it beside the events."""

import asyncio
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from eventcore import Projection, RecordedEvent
from examples.flights.domain import FlightDeparted, FlightDiverted, FlightLanded

__all__ = ["Picture", "Whereabouts", "whereabouts"]

_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS flights_aircraft (aircraft TEXT PRIMARY KEY, in_the_air BOOLEAN NOT NULL, place TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS flights_traffic ("
    "airport TEXT, hour TEXT, direction TEXT, flights BIGINT NOT NULL, PRIMARY KEY (airport, hour, direction))",
)
# SQL for both databases. PostgreSQL takes the numbered placeholders; for SQLite they are replaced by question marks.
_MOVE: Final = (
    "INSERT INTO flights_aircraft VALUES ($1, $2, $3) "
    "ON CONFLICT (aircraft) DO UPDATE SET in_the_air = excluded.in_the_air, place = excluded.place"
)
_STAY: Final = "UPDATE flights_aircraft SET in_the_air = false WHERE aircraft = $1"
_COUNT: Final = (
    "INSERT INTO flights_traffic VALUES ($1, $2, $3, $4) "
    "ON CONFLICT (airport, hour, direction) DO UPDATE SET flights = flights_traffic.flights + excluded.flights"
)
_AIRCRAFT: Final = "SELECT aircraft, in_the_air, place FROM flights_aircraft"
_TRAFFIC: Final = "SELECT airport, hour, direction, flights FROM flights_traffic"
_UNKNOWN_AIRPORT: Final = "unknown"


class Picture:
    """The read model as plain values, computed from events.

    Attributes:
        aircraft: for each aircraft, whether it is in the air, and the airport where it is or which it flies to. ``None`` means
            the destination of the flight before, when that departed in an earlier batch.
        traffic: the number of flights by airport, hour and direction.
    """

    def __init__(self, events: Iterable[RecordedEvent] = ()) -> None:
        self.aircraft: dict[str, tuple[bool, str | None]] = {}
        self.traffic: Counter[tuple[str, str, str]] = Counter()
        for event in events:
            self.apply(event)

    def apply(self, event: RecordedEvent) -> None:
        """Apply one event."""
        kind, _, name = event.stream_id.partition("-")
        happened = event.data
        if kind == "airport" and isinstance(happened, (FlightDeparted, FlightLanded)):
            direction = "out" if isinstance(happened, FlightDeparted) else "in"
            self.traffic[name.partition("-")[0], f"{happened.at:%Y-%m-%d %H}", direction] += 1
        elif kind == "aircraft":
            match happened:
                case FlightDeparted():
                    self.aircraft[name] = (True, happened.destination)
                case FlightLanded():
                    self.aircraft[name] = (False, self.aircraft.get(name, (False, None))[1])
                case FlightDiverted():
                    self.aircraft[name] = (False, _UNKNOWN_AIRPORT)
                case _:
                    pass

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Picture) and (self.aircraft, self.traffic) == (other.aircraft, other.traffic)

    __hash__ = None  # type: ignore[assignment]  # it is mutable

    def __str__(self) -> str:
        flying = sum(in_the_air for in_the_air, _ in self.aircraft.values())
        return f"{len(self.aircraft):,} aircraft, {flying:,} of them in the air; {len(self.traffic):,} hours of airports"


class Whereabouts(Projection):
    """Base of the projection. There is one form for each kind of store."""

    name = "whereabouts"
    pattern = "a*"

    async def read(self) -> Picture:
        """Read the current read model."""
        raise NotImplementedError


class WhereaboutsInMemory(Whereabouts):
    """For a store in memory: the read model is kept in memory, too."""

    def __init__(self) -> None:
        self._picture = Picture()

    def handle(self, event: RecordedEvent) -> None:
        self._picture.apply(event)

    async def read(self) -> Picture:
        return self._picture


class WhereaboutsInSqlite(Whereabouts):
    """Tables in the file of the store, changed in one transaction with the checkpoint."""

    def __init__(self, path: str) -> None:
        self._path = path

    def handle_batch(self, events: Sequence[RecordedEvent], transaction: sqlite3.Connection) -> None:
        for statement, rows in _changes(Picture(events)):
            transaction.executemany(_with_question_marks(statement), rows)

    async def read(self) -> Picture:
        return await asyncio.to_thread(self._read)

    def _read(self) -> Picture:
        with closing(sqlite3.connect(self._path)) as database:
            return _picture(database.execute(_AIRCRAFT).fetchall(), database.execute(_TRAFFIC).fetchall())


class WhereaboutsInPostgres(Whereabouts):
    """Tables in the database of the store, changed in one transaction with the checkpoint."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    async def handle_batch(self, events: Sequence[RecordedEvent], transaction: Any) -> None:
        for statement, rows in _changes(Picture(events)):
            await transaction.executemany(statement, rows)

    async def read(self) -> Picture:
        import asyncpg

        connection = await asyncpg.connect(self._dsn)
        try:
            return _picture(await connection.fetch(_AIRCRAFT), await connection.fetch(_TRAFFIC))
        finally:
            await connection.close()


async def whereabouts(url: str) -> Whereabouts:
    """The projection for the store at ``url``. Creates the tables."""
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        path = unquote(urlsplit(url).path.removeprefix("/"))
        await asyncio.to_thread(_make_tables, path)
        return WhereaboutsInSqlite(path)
    if scheme in ("postgresql", "postgres"):
        import asyncpg

        # The query string holds settings of the store, which asyncpg does not know.
        dsn = urlsplit(url)._replace(query="").geturl()
        connection = await asyncpg.connect(dsn)
        try:
            for statement in _SCHEMA:
                await connection.execute(statement)
        finally:
            await connection.close()
        return WhereaboutsInPostgres(dsn)
    return WhereaboutsInMemory()


def _make_tables(path: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for statement in _SCHEMA:
            database.execute(statement)


def _changes(picture: Picture) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    """The changes of a batch, as statements with their rows."""
    moves = [(name, flying, airport) for name, (flying, airport) in picture.aircraft.items() if airport is not None]
    stays = [(name,) for name, (_, airport) in picture.aircraft.items() if airport is None]
    counts = [(*key, flights) for key, flights in picture.traffic.items()]
    yield from ((statement, rows) for statement, rows in ((_MOVE, moves), (_STAY, stays), (_COUNT, counts)) if rows)


def _with_question_marks(statement: str) -> str:
    # Every placeholder occurs once, in order.
    return re.sub(r"\$\d", "?", statement)


def _picture(aircraft: Iterable[Sequence[Any]], traffic: Iterable[Sequence[Any]]) -> Picture:
    picture = Picture()
    picture.aircraft = {name: (bool(flying), airport) for name, flying, airport in aircraft}
    picture.traffic = Counter({(airport, hour, direction): flights for airport, hour, direction, flights in traffic})
    return picture
