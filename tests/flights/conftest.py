"""Fixtures for the tests of the flights example: small schedules, and the real data."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from examples.flights.data import DataMissing, Schedule, find_data

HEADER = (
    "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,origin,dest,"
    "air_time,distance,hour,minute,time_hour"
)
AIRPORTS = (
    "faa,name,lat,lon,alt,tz,dst,tzone\n"
    "IAH,Houston,29,-95,97,-6,A,America/Chicago\n"
    "HNL,Honolulu,21,-157,13,-10,N,Pacific/Honolulu\n"
    "ATL,Atlanta,33,-84,1026,-5,A,America/New_York\n"
)


@pytest.fixture
def make_schedule(tmp_path: Path) -> Callable[..., Schedule]:
    """A function that makes a schedule from lines of CSV."""

    def make(*lines: str) -> Schedule:
        (tmp_path / "airports.csv").write_text(AIRPORTS)
        with zipfile.ZipFile(tmp_path / "flights.csv.zip", "w") as archive:
            archive.writestr("flights.csv", "\n".join([HEADER, *lines, ""]))
        return Schedule(tmp_path)

    return make


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real data. Without it a test is skipped, or fails if EVENTCORE_REQUIRE_COMPONENTS is set."""
    try:
        return find_data()
    except DataMissing as missing:
        if os.environ.get("EVENTCORE_REQUIRE_COMPONENTS") == "1":
            pytest.fail(f"EVENTCORE_REQUIRE_COMPONENTS=1: {missing}", pytrace=False)
        pytest.skip(str(missing))
