"""The domain: events, rules and commands of aircraft and airports. It knows neither stores nor telemetry."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import ClassVar

from eventcore import BusinessRuleViolation, Command, Event, RecordedEvent, StreamId

__all__ = [
    "AircraftInTheAir",
    "AircraftNotInTheAir",
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


# Commands


@dataclass(slots=True)
class Departure:
    """The state that decides about a departure. It holds no lists, so applying a thousand events costs little."""

    in_the_air_as: str | None = None
    departed: bool = False
    cancelled: bool = False


class DepartFlight(Command[Departure]):
    """A flight leaves: writes to the streams of the aircraft and of the origin, or to neither."""

    aircraft: StreamId | None
    airport: StreamId
    flight: str
    destination: str
    at: datetime

    def initial_state(self) -> Departure:
        return Departure()

    def apply(self, state: Departure, event: RecordedEvent) -> Departure:
        happened = event.data
        if event.stream_id == self.aircraft:
            state.in_the_air_as = happened.flight if isinstance(happened, FlightDeparted) else None
        elif isinstance(happened, FlightDeparted):
            state.departed |= happened.flight == self.flight
        elif isinstance(happened, FlightCancelled):
            state.cancelled |= happened.flight == self.flight
        return state

    def handle(self, state: Departure) -> Iterator[tuple[StreamId, Event]]:
        if self.aircraft is None:
            raise NoAircraft(f"{self.flight} has no aircraft")
        if state.cancelled:
            raise FlightIsCancelled(f"{self.flight} is cancelled")
        if state.departed:
            raise AlreadyDeparted(f"{self.flight} has left")
        if state.in_the_air_as is not None:
            raise AircraftInTheAir(f"{self.flight} cannot leave: {self.aircraft} is in the air as {state.in_the_air_as}")
        departed = FlightDeparted(flight=self.flight, destination=self.destination, at=self.at)
        yield self.aircraft, departed
        yield self.airport, departed


class CancelFlight(Command[bool]):
    """Cancels a flight before it leaves. A second call writes nothing. The state is whether it is cancelled."""

    airport: StreamId
    flight: str
    at: datetime

    def initial_state(self) -> bool:
        return False

    def apply(self, state: bool, event: RecordedEvent) -> bool:
        happened = event.data
        return state or (isinstance(happened, FlightCancelled) and happened.flight == self.flight)

    def handle(self, state: bool) -> Iterator[tuple[StreamId, Event]]:
        if not state:
            yield self.airport, FlightCancelled(flight=self.flight, at=self.at)


class EndFlight(Command[str | None]):
    """Base of commands that end a flight. The state is the flight that the aircraft is on."""

    aircraft: StreamId
    flight: str
    at: datetime

    def initial_state(self) -> str | None:
        return None

    def apply(self, state: str | None, event: RecordedEvent) -> str | None:
        if event.stream_id != self.aircraft:
            return state
        return event.data.flight if isinstance(event.data, FlightDeparted) else None

    def check(self, state: str | None) -> None:
        """Refuse the command when the aircraft is not on this flight."""
        if state != self.flight:
            raise AircraftNotInTheAir(f"{self.flight} cannot end: {self.aircraft} is {state or 'on the ground'}")


class LandFlight(EndFlight):
    """A flight arrives: writes to the streams of the aircraft and of the destination."""

    airport: StreamId

    def handle(self, state: str | None) -> Iterator[tuple[StreamId, Event]]:
        self.check(state)
        landed = FlightLanded(flight=self.flight, at=self.at)
        yield self.aircraft, landed
        yield self.airport, landed


class DivertFlight(EndFlight):
    """A flight lands at an airport that the data do not name."""

    def handle(self, state: str | None) -> Iterator[tuple[StreamId, Event]]:
        self.check(state)
        yield self.aircraft, FlightDiverted(flight=self.flight, at=self.at)
