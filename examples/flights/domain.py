"""The domain: events, rules and commands of aircraft and airports. It knows neither stores nor telemetry."""

from collections.abc import Iterator, Mapping
from datetime import date, datetime
from typing import Annotated, Any, ClassVar

from eventcore import BusinessRuleViolation, Command, Event, RecordedEvent, StreamId, StreamState

__all__ = [
    "Aircraft",
    "AircraftInTheAir",
    "AircraftNotInTheAir",
    "Airport",
    "AlreadyDeparted",
    "CancelFlight",
    "DepartFlight",
    "DivertFlight",
    "FlightCancelled",
    "FlightDeparted",
    "FlightDiverted",
    "FlightIsCancelled",
    "FlightLanded",
    "LandFlight",
    "NoAircraft",
    "Refusal",
    "aircraft_stream",
    "airport_stream",
]


def aircraft_stream(tail_number: str) -> StreamId:
    """The stream of one aircraft."""
    return StreamId(f"aircraft-{tail_number}")


def airport_stream(airport: str, day: date) -> StreamId:
    """The stream of one airport on one day: so the length of a stream is limited."""
    return StreamId(f"airport-{airport}-{day}")


# Events


class FlightDeparted(Event):
    """Written to the streams of the aircraft and of the origin."""

    flight: str
    destination: str
    at: datetime


class FlightLanded(Event):
    """Written to the streams of the aircraft and of the destination."""

    flight: str
    at: datetime


class FlightDiverted(Event):
    """Written to the stream of the aircraft: it landed at another airport."""

    flight: str
    at: datetime


class FlightCancelled(Event):
    """Written to the stream of the origin."""

    flight: str
    at: datetime


# Rules


class Refusal(BusinessRuleViolation):
    """A command broke a rule of this domain; ``reason`` names the rule in metrics."""

    reason: ClassVar[str]


class NoAircraft(Refusal):
    """The data do not name the aircraft."""

    reason = "no_aircraft"


class FlightIsCancelled(Refusal):
    """A cancelled flight does not fly."""

    reason = "flight_cancelled"


class AlreadyDeparted(Refusal):
    """A flight departs once a day."""

    reason = "already_departed"


class AircraftInTheAir(Refusal):
    """An aircraft that is in the air cannot depart."""

    reason = "in_the_air"


class AircraftNotInTheAir(Refusal):
    """Only an aircraft that is on the flight can end it."""

    reason = "not_in_the_air"


# States of streams


class Aircraft(StreamState, version=1, snapshot_every=500):
    """The flight that an aircraft is on."""

    in_the_air_as: str | None = None

    def apply(self, event: RecordedEvent) -> None:
        self.in_the_air_as = event.data.flight if isinstance(event.data, FlightDeparted) else None


class Airport(StreamState, version=2, snapshot_every=500):
    """The flights that have left an airport on one day, and those that do not leave.

    Each command gets a copy of the state. So the flights are in one text, a line each: of a set, every member would be copied.
    """

    departed: str = "\n"
    cancelled: str = "\n"

    def apply(self, event: RecordedEvent) -> None:
        happened = event.data
        if isinstance(happened, FlightDeparted):
            self.departed += f"{happened.flight}\n"
        elif isinstance(happened, FlightCancelled):
            self.cancelled += f"{happened.flight}\n"

    def has_left(self, flight: str) -> bool:
        """Whether the flight has left."""
        return f"\n{flight}\n" in self.departed

    def is_cancelled(self, flight: str) -> bool:
        """Whether the flight does not leave."""
        return f"\n{flight}\n" in self.cancelled


# Commands


class DepartFlight(Command[Mapping[StreamId, Any]]):
    """A flight leaves: writes to the streams of the aircraft and of the origin, or to neither."""

    aircraft: Annotated[StreamId | None, Aircraft]
    airport: Annotated[StreamId, Airport]
    flight: str
    destination: str
    at: datetime

    def handle(self, state: Mapping[StreamId, Any]) -> Iterator[tuple[StreamId, Event]]:
        airport: Airport = state[self.airport]
        if self.aircraft is None:
            raise NoAircraft(f"{self.flight} has no aircraft")
        if airport.is_cancelled(self.flight):
            raise FlightIsCancelled(f"{self.flight} is cancelled")
        if airport.has_left(self.flight):
            raise AlreadyDeparted(f"{self.flight} has left")
        aircraft: Aircraft = state[self.aircraft]
        if aircraft.in_the_air_as is not None:
            raise AircraftInTheAir(f"{self.flight} cannot leave: {self.aircraft} is in the air as {aircraft.in_the_air_as}")
        departed = FlightDeparted(flight=self.flight, destination=self.destination, at=self.at)
        yield self.aircraft, departed
        yield self.airport, departed


class CancelFlight(Command[Mapping[StreamId, Airport]]):
    """Cancels a flight before it leaves. A second call writes nothing."""

    airport: Annotated[StreamId, Airport]
    flight: str
    at: datetime

    def handle(self, state: Mapping[StreamId, Airport]) -> Iterator[tuple[StreamId, Event]]:
        if not state[self.airport].is_cancelled(self.flight):
            yield self.airport, FlightCancelled(flight=self.flight, at=self.at)


class EndFlight(Command[Mapping[StreamId, Aircraft]]):
    """Base of commands that end a flight."""

    aircraft: Annotated[StreamId, Aircraft]
    flight: str
    at: datetime

    def check(self, state: Mapping[StreamId, Aircraft]) -> None:
        """Refuse the command when the aircraft is not on this flight."""
        flight = state[self.aircraft].in_the_air_as
        if flight != self.flight:
            raise AircraftNotInTheAir(f"{self.flight} cannot end: {self.aircraft} is {flight or 'on the ground'}")


class LandFlight(EndFlight):
    """A flight arrives: writes to the streams of the aircraft and of the destination, whose events do not matter for it."""

    airport: StreamId

    def handle(self, state: Mapping[StreamId, Aircraft]) -> Iterator[tuple[StreamId, Event]]:
        self.check(state)
        landed = FlightLanded(flight=self.flight, at=self.at)
        yield self.aircraft, landed
        yield self.airport, landed


class DivertFlight(EndFlight):
    """A flight lands at an airport that the data do not name."""

    def handle(self, state: Mapping[StreamId, Aircraft]) -> Iterator[tuple[StreamId, Event]]:
        self.check(state)
        yield self.aircraft, FlightDiverted(flight=self.flight, at=self.at)
