"""The exporter. All of its hooks are ``async def``: they run on an event loop that eventcore keeps for it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import httpx

from eventcore.exporting import (
    CounterData,
    Exporter,
    ExporterContext,
    GaugeData,
    GiveUp,
    HistogramData,
    Rejected,
    RetryLater,
    Secret,
    Signal,
    hookimpl,
)
from eventcore_influx.lines import histogram_line, number_line

_LINES_OF_A_REQUEST: Final = 5000
_DROPPED: Final = re.compile(r"partial write: .*dropped=(\d+)", re.DOTALL)
_UNREADABLE: Final = re.compile(r"unable to parse '")


class InfluxExporter(Exporter):
    """Writes each metric as a measurement of its name, with the labels as tags.

    A counter or gauge has the field ``value``. A histogram has ``count``, ``sum``, ``min``, ``max``, and for each bucket a
    field like ``le_0.5``: how many values are in this bucket, not cumulative. Totals count from the beginning of their
    series: use ``non_negative_difference`` or ``non_negative_derivative`` in queries.

    Args:
        url: of the server, ``http://HOST:PORT``; InfluxDB 1.x, or another one that has its ``/write``.
        database: into which database.
        username: of a user who may write; empty without authentication.
        password: of that user.
        token: of InfluxDB 2 and 3, in place of user and password.
        tags: further tags of every point.
    """

    signals: Sequence[Signal] = ("metrics",)

    def __init__(
        self,
        url: str = "http://localhost:8086",
        database: str = "eventcore",
        username: str = "",
        password: Secret | None = None,
        token: Secret | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"url: expected http://HOST:PORT or https://HOST:PORT, got {url!r}")
        self.url = url.rstrip("/")
        self.database = database
        self.username = username
        self.password = password
        self.token = token
        self.tags: Mapping[str, str] = tags or {}
        self._client: httpx.AsyncClient | None = None
        self._lines: list[str] = []

    @hookimpl
    async def start(self, context: ExporterContext) -> None:
        headers = {"Authorization": f"Token {self.token.reveal()}"} if self.token is not None else {}
        password = self.password.reveal() if self.password is not None else ""
        self._client = httpx.AsyncClient(
            base_url=self.url, headers=headers, auth=(self.username, password) if self.username else None
        )

    @hookimpl
    async def begin(self, signal: Signal, attempt: int) -> None:
        self._lines = []

    @hookimpl
    async def export_counters(self, counters: Sequence[CounterData], timeout: float) -> Rejected | None:
        return self._take_numbers(counters)

    @hookimpl
    async def export_gauges(self, gauges: Sequence[GaugeData], timeout: float) -> Rejected | None:
        return self._take_numbers(gauges)

    @hookimpl
    async def export_histograms(self, histograms: Sequence[HistogramData], timeout: float) -> None:
        self._lines += [histogram_line(data, point, self.tags) for data in histograms for point in data.points]

    @hookimpl
    async def flush(self, signal: Signal, timeout: float) -> Rejected | None:
        refused, reason = 0, ""
        for first in range(0, len(self._lines), _LINES_OF_A_REQUEST):
            answer = await self._write(self._lines[first : first + _LINES_OF_A_REQUEST], timeout)
            if answer is not None:
                refused, reason = refused + answer.count, answer.reason
        return Rejected(refused, reason) if refused else None

    @hookimpl
    async def shutdown(self, timeout: float) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _take_numbers(self, metrics: Sequence[CounterData] | Sequence[GaugeData]) -> Rejected | None:
        """Keep a line for each point; the line protocol has no NaN and no infinity."""
        lines = [number_line(data, point, self.tags) for data in metrics for point in data.points]
        self._lines += filter(None, lines)
        refused = lines.count("")
        return Rejected(refused, "the line protocol has no NaN and no infinity") if refused else None

    async def _write(self, lines: Sequence[str], timeout: float) -> Rejected | None:
        """Send lines, and translate the answer."""
        assert self._client is not None, "eventcore calls start first"
        try:
            response = await self._client.post(
                "/write", params={"db": self.database}, content="\n".join(lines).encode(), timeout=timeout
            )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise RetryLater(reason=f"{type(error).__name__}: {error}") from error
        except httpx.HTTPError as error:
            # The request may have arrived. Points of the same time that arrive again replace the first ones.
            raise RetryLater(reason=f"{type(error).__name__}: {error}", outcome_unknown=True) from error
        return _understood(response)


def _understood(response: httpx.Response) -> Rejected | None:
    """What an answer means.

    Raises:
        RetryLater: the server is busy or broken.
        GiveUp: user, token, database or address are wrong.
    """
    if response.is_success:
        return None
    reason = f"HTTP {response.status_code}: {response.text.strip()[:200]}"
    if response.status_code == 400:
        # The server has kept the other lines.
        if dropped := _DROPPED.search(response.text):
            return Rejected(int(dropped[1]), reason)
        return Rejected(len(_UNREADABLE.findall(response.text)) or 1, reason)
    if response.status_code == 429 or response.status_code >= 500:
        raise RetryLater(_seconds(response.headers), reason)
    raise GiveUp(reason)


def _seconds(headers: Mapping[str, str]) -> float | None:
    """The header ``Retry-After`` in seconds; a date counts as none.

    >>> _seconds({"retry-after": "3"}), _seconds({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}), _seconds({})
    (3.0, None, None)
    """
    text = headers.get("retry-after", "")
    return float(text) if text.isdecimal() else None
