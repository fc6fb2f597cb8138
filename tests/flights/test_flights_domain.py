"""The rules of the domain, tested without a store."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import pytest

from eventcore import Command, Event, StreamId
from eventcore.testing import given
from examples.flights.domain import (
    AircraftInTheAir,
    AircraftNotInTheAir,
    AlreadyDeparted,
    CancelFlight,
    DepartFlight,
    DivertFlight,
    FlightCancelled,
    FlightDeparted,
    FlightDiverted,
    FlightIsCancelled,
    FlightLanded,
    LandFlight,
    NoAircraft,
    Refusal,
    aircraft_stream,
    airport_stream,
)

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)
AIRCRAFT = aircraft_stream("N14228")
NEWARK = airport_stream("EWR", date(2013, 1, 1))
HOUSTON = airport_stream("IAH", date(2013, 1, 1))

DEPARTED = FlightDeparted(flight="UA1", destination="IAH", at=NOON)
OTHER_DEPARTED = FlightDeparted(flight="UA2", destination="MIA", at=NOON)
LANDED = FlightLanded(flight="UA1", at=NOON)
DIVERTED = FlightDiverted(flight="UA1", at=NOON)
CANCELLED = FlightCancelled(flight="UA1", at=NOON)

DEPART = DepartFlight(aircraft=AIRCRAFT, airport=NEWARK, flight="UA1", destination="IAH", at=NOON)
LAND = LandFlight(aircraft=AIRCRAFT, airport=HOUSTON, flight="UA1", at=NOON)
DIVERT = DivertFlight(aircraft=AIRCRAFT, flight="UA1", at=NOON)
CANCEL = CancelFlight(airport=NEWARK, flight="UA1", at=NOON)

History = Sequence[tuple[StreamId, Event]]


def decide(command: Command[Any], history: History = ()) -> list[tuple[StreamId, Event]]:
    return list(given(*history).when(command).events)


def test_a_departure_changes_the_aircraft_and_the_airport() -> None:
    assert decide(DEPART) == [(AIRCRAFT, DEPARTED), (NEWARK, DEPARTED)]


def test_a_landing_changes_the_aircraft_and_the_destination() -> None:
    assert decide(LAND, [(AIRCRAFT, DEPARTED)]) == [(AIRCRAFT, LANDED), (HOUSTON, LANDED)]


def test_a_diverted_flight_ends_at_an_unknown_airport() -> None:
    assert decide(DIVERT, [(AIRCRAFT, DEPARTED)]) == [(AIRCRAFT, DIVERTED)]


def test_a_flight_is_cancelled_once() -> None:
    assert decide(CANCEL) == [(NEWARK, CANCELLED)]
    assert decide(CANCEL, [(NEWARK, CANCELLED)]) == []


@pytest.mark.parametrize("ended", [LANDED, DIVERTED])
def test_an_aircraft_leaves_again_once_its_flight_has_ended(ended: Event) -> None:
    before = FlightDeparted(flight="UA0", destination="IAH", at=NOON)
    assert decide(DEPART, [(AIRCRAFT, before), (AIRCRAFT, ended)]) == [(AIRCRAFT, DEPARTED), (NEWARK, DEPARTED)]


def test_other_flights_at_the_airport_do_not_prevent_a_departure() -> None:
    others = [(NEWARK, OTHER_DEPARTED), (NEWARK, FlightCancelled(flight="UA3", at=NOON)), (NEWARK, LANDED)]
    assert decide(DEPART, others) == [(AIRCRAFT, DEPARTED), (NEWARK, DEPARTED)]


@pytest.mark.parametrize(
    ("command", "history", "refusal"),
    [
        pytest.param(DEPART, [(AIRCRAFT, OTHER_DEPARTED)], AircraftInTheAir, id="in the air"),
        pytest.param(DEPART, [(NEWARK, CANCELLED)], FlightIsCancelled, id="cancelled"),
        pytest.param(DEPART, [(AIRCRAFT, DEPARTED), (NEWARK, DEPARTED), (AIRCRAFT, LANDED)], AlreadyDeparted, id="departed"),
        pytest.param(
            DepartFlight(aircraft=None, airport=NEWARK, flight="UA1", destination="IAH", at=NOON),
            [],
            NoAircraft,
            id="no aircraft",
        ),
        pytest.param(LAND, [], AircraftNotInTheAir, id="land from the ground"),
        pytest.param(LAND, [(AIRCRAFT, OTHER_DEPARTED)], AircraftNotInTheAir, id="land as another flight"),
        pytest.param(DIVERT, [(AIRCRAFT, DEPARTED), (AIRCRAFT, LANDED)], AircraftNotInTheAir, id="divert after the landing"),
    ],
)
def test_a_rule_refuses(command: Command[Any], history: History, refusal: type[Refusal]) -> None:
    given(*history).when(command).then_refused(refusal)


def test_every_rule_has_a_unique_name_in_metrics() -> None:
    rules = Refusal.__subclasses__()
    assert len({rule.reason for rule in rules}) == len(rules) == 5
