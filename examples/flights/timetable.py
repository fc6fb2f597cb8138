"""The timetable: turns the flights into commands in order of time."""

import asyncio
import heapq
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import msgspec

from eventcore import Command
from examples.flights.data import Flight, Schedule
from examples.flights.domain import CancelFlight, DepartFlight, DivertFlight, LandFlight, aircraft_stream, airport_stream

__all__ = ["Move", "moves_of", "timetable"]

# A day in New York begins at 4:00 UTC or 5:00 UTC, and no flight left more than an hour before its scheduled time.
_DAY_BEGINS: Final = timedelta(hours=3)


class Move(msgspec.Struct, frozen=True):
    """A command with its time. Moves with the same ``lane`` are executed one after the other."""

    at: datetime
    rank: int
    lane: str
    command: Command[Any]

    def __lt__(self, other: "Move") -> bool:
        # Within a minute, an aircraft lands before it departs, and a flight is cancelled before its departure.
        return (self.at, self.rank) < (other.at, other.rank)


def moves_of(flight: Flight) -> Iterator[Move]:
    """The moves of a flight. There is always a departure; the rules refuse it if the flight is cancelled or has no aircraft."""
    lane = flight.aircraft or flight.key
    aircraft = aircraft_stream(flight.aircraft) if flight.aircraft is not None else None
    origin = airport_stream(flight.origin, flight.day)
    leaves = flight.departed or flight.scheduled
    if flight.departed is None:
        yield Move(leaves, 1, lane, CancelFlight(airport=origin, flight=flight.key, at=leaves))
    departure = DepartFlight(aircraft=aircraft, airport=origin, flight=flight.key, destination=flight.destination, at=leaves)
    yield Move(leaves, 2, lane, departure)
    if flight.departed is None or aircraft is None:
        return
    if flight.arrived is None or flight.arrival_day is None:
        yield Move(flight.expected, 0, lane, DivertFlight(aircraft=aircraft, flight=flight.key, at=flight.expected))
    else:
        there = airport_stream(flight.destination, flight.arrival_day)
        landing = LandFlight(aircraft=aircraft, airport=there, flight=flight.key, at=flight.arrived)
        yield Move(flight.arrived, 0, lane, landing)


async def timetable(schedule: Schedule) -> AsyncIterator[Move]:
    """Every move of the year in order of time. Each day is parsed in a thread when it is needed."""
    coming: list[Move] = []
    for day in schedule.days:
        begins = datetime.combine(day, datetime.min.time(), UTC) + _DAY_BEGINS
        for move in _before(coming, begins):
            yield move
        for move in await asyncio.to_thread(_read_day, schedule, day):
            heapq.heappush(coming, move)
    while coming:
        yield heapq.heappop(coming)


def _read_day(schedule: Schedule, day: date) -> list[Move]:
    return [move for flight in schedule.flights(day) for move in moves_of(flight)]


def _before(coming: list[Move], end: datetime) -> Iterable[Move]:
    while coming and coming[0].at < end:
        yield heapq.heappop(coming)
