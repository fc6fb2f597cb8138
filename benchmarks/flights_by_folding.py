"""The commands of the example ``flights`` without states of streams: each folds its streams from the first event."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from eventcore import Command, Event, RecordedEvent, StreamId
from examples.flights import domain
from examples.flights.domain import FlightCancelled, FlightDeparted, FlightDiverted, FlightLanded

__all__ = ["by_folding"]


@dataclass(slots=True)
class _Departure:
    """It holds no lists, so applying a thousand events costs little."""

    in_the_air_as: str | None = None
    departed: bool = False
    cancelled: bool = False


class _Depart(Command[_Departure]):
    aircraft: StreamId | None
    airport: StreamId
    flight: str
    destination: str
    at: datetime

    def initial_state(self) -> _Departure:
        return _Departure()

    def apply(self, state: _Departure, event: RecordedEvent) -> _Departure:
        happened = event.data
        if event.stream_id == self.aircraft:
            state.in_the_air_as = happened.flight if isinstance(happened, FlightDeparted) else None
        elif isinstance(happened, FlightDeparted):
            state.departed |= happened.flight == self.flight
        elif isinstance(happened, FlightCancelled):
            state.cancelled |= happened.flight == self.flight
        return state

    def handle(self, state: _Departure) -> Iterator[tuple[StreamId, Event]]:
        if self.aircraft is None:
            raise domain.NoAircraft(self.flight)
        if state.cancelled:
            raise domain.FlightIsCancelled(self.flight)
        if state.departed:
            raise domain.AlreadyDeparted(self.flight)
        if state.in_the_air_as is not None:
            raise domain.AircraftInTheAir(self.flight)
        departed = FlightDeparted(flight=self.flight, destination=self.destination, at=self.at)
        yield self.aircraft, departed
        yield self.airport, departed


class _Cancel(Command[bool]):
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


class _End(Command[str | None]):
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
            raise domain.AircraftNotInTheAir(self.flight)


class _Land(_End):
    airport: StreamId

    def handle(self, state: str | None) -> Iterator[tuple[StreamId, Event]]:
        self.check(state)
        landed = FlightLanded(flight=self.flight, at=self.at)
        yield self.aircraft, landed
        yield self.airport, landed


class _Divert(_End):
    def handle(self, state: str | None) -> Iterator[tuple[StreamId, Event]]:
        self.check(state)
        yield self.aircraft, FlightDiverted(flight=self.flight, at=self.at)


_FOLDING: Final[dict[type[Command[Any]], type[Command[Any]]]] = {
    domain.DepartFlight: _Depart,
    domain.CancelFlight: _Cancel,
    domain.LandFlight: _Land,
    domain.DivertFlight: _Divert,
}


def by_folding(command: Command[Any]) -> Command[Any]:
    """The command that decides the same as ``command`` of the example, and folds its streams itself."""
    return _FOLDING[type(command)](**{name: getattr(command, name) for name in command.__struct_fields__})
