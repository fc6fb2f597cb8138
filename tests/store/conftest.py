from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import uuid4

import pytest

from eventcore import EventStore, Telemetry, open_store
from eventcore.exporting import CounterData, GaugeData, HistogramData
from tests.real_parts.postgres import PostgresServer


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'bank.db'}"


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    match request.param:
        case "memory":
            return "memory:"
        case "sqlite":
            return str(request.getfixturevalue("sqlite_url"))
        case _:
            pytest.importorskip("asyncpg")
            server: PostgresServer = request.getfixturevalue("newest_postgres")
            return f"{server.url()}?schema=store_{uuid4().hex}"


@pytest.fixture
async def telemetry() -> AsyncIterator[Telemetry]:
    async with Telemetry(exporters=[], traces_per_second="all") as telemetry:
        yield telemetry


@pytest.fixture
async def store(url: str, telemetry: Telemetry) -> AsyncIterator[EventStore]:
    async with open_store(url, telemetry=telemetry) as store:
        yield store


Measured = Callable[..., float]


@pytest.fixture
def measured(telemetry: Telemetry) -> Measured:
    """The value (of a histogram: the count) of the catalogue's series that has these labels, 0 where there is none."""

    def value(name: str, **labels: str) -> float:
        wanted = {key.replace("_", "."): text for key, text in labels.items()}
        total = 0.0
        for data in telemetry.collect():
            if data.name != f"eventcore.{name}":
                continue
            for point in data.points:
                if wanted.items() <= dict(point.labels).items():
                    match data:
                        case HistogramData():
                            total += point.count  # type: ignore[union-attr]  # a histogram's points have it
                        case CounterData() | GaugeData():
                            total += point.value  # type: ignore[union-attr]  # a number's points have it
        return total

    return value
