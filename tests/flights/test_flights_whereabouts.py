"""The read model of the example, in memory and in tables of the store."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from eventcore import StreamId, open_store
from examples.flights.domain import DepartFlight, DivertFlight, LandFlight, aircraft_stream, airport_stream
from examples.flights.whereabouts import Picture, whereabouts

AT = datetime(2013, 1, 1, 10, 5, tzinfo=UTC)
LATER = datetime(2013, 1, 1, 12, 30, tzinfo=UTC)


def departure(aircraft: StreamId, flight: str, destination: str) -> DepartFlight:
    return DepartFlight(
        aircraft=aircraft, airport=airport_stream("EWR", AT.date()), flight=flight, destination=destination, at=AT
    )


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory:" if request.param == "memory" else f"sqlite:///{tmp_path / 'flights.db'}"


async def test_the_read_model_holds_where_aircraft_are_and_flights_by_hour(url: str) -> None:
    there, away, lost = (aircraft_stream(name) for name in ("N1", "N2", "N3"))
    async with open_store(url, exporters="none") as store:
        projection = await whereabouts(url)
        for aircraft, flight in ((there, "UA1"), (away, "UA2"), (lost, "UA3")):
            await store.execute(departure(aircraft, flight, "LAX"))
        running = asyncio.create_task(store.run(projection))
        await store.wait_for(projection, await store.head_position())
        # In a later batch, so that its destination is known from the tables only.
        landed = await store.execute(
            LandFlight(aircraft=there, airport=airport_stream("LAX", LATER.date()), flight="UA1", at=LATER)
        )
        diverted = await store.execute(DivertFlight(aircraft=lost, flight="UA3", at=LATER))
        await store.wait_for(projection, max(landed.position, diverted.position))
        read = await projection.read()
        folded = Picture([event async for event in store.read_all()])
    await running
    assert read == folded
    assert read.aircraft == {"N1": (False, "LAX"), "N2": (True, "LAX"), "N3": (False, "unknown")}
    assert read.traffic == {("EWR", "2013-01-01 10", "out"): 3, ("LAX", "2013-01-01 12", "in"): 1}
    assert str(read) == "3 aircraft, 1 of them in the air; 2 hours of airports"
