"""Reads request headers: the format and coding that a client accepts, and how long it waits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

_LARGEST_MARGIN: Final = 0.5


@final
@dataclass(frozen=True, slots=True)
class Format:
    """A format in which the page is served."""

    content_type: str
    openmetrics: bool


TEXT: Final = Format("text/plain; version=0.0.4; charset=utf-8", openmetrics=False)
OPENMETRICS: Final = Format("application/openmetrics-text; version=1.0.0; charset=utf-8", openmetrics=True)

# Media types of an Accept header, the versions that may be asked for (empty: without a version), and the format to serve.
_OFFERS: Final = (
    ("application/openmetrics-text", ("", "1.0.0", "0.0.1"), OPENMETRICS),
    ("text/plain", ("", "0.0.4"), TEXT),
    ("text/*", ("",), TEXT),
    ("*/*", ("",), TEXT),
)


def choose_format(accept: str) -> Format:
    """The format that the client prefers, the first of equal ones; the text format if it accepts neither, as scrapers expect.

    >>> choose_format("application/openmetrics-text;version=1.0.0;q=0.8,text/plain;q=0.5").openmetrics
    True
    >>> choose_format("*/*").openmetrics
    False
    """
    best, best_quality = TEXT, 0.0
    for media_type, parameters in _weighed(accept):
        for offer, versions, chosen in _OFFERS:
            if media_type == offer and parameters.get("version", "") in versions:
                # A wildcard stands for types that the client does not name: a named type comes before it at the same weight.
                quality = _quality(parameters) * (0.999 if "*" in offer else 1.0)
                if quality > best_quality:
                    best, best_quality = chosen, quality
    return best


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether the client accepts gzip.

    >>> accepts_gzip("gzip, br"), accepts_gzip("gzip;q=0, *"), accepts_gzip("")
    (True, False, False)
    """
    qualities = {coding: _quality(parameters) for coding, parameters in _weighed(accept_encoding)}
    return qualities.get("gzip", qualities.get("x-gzip", qualities.get("*", 0.0))) > 0


def time_limit(header: str, longest: float) -> float:
    """Seconds that a scrape may take: the scraper's timeout, less a margin for sending the response, and at most ``longest``.

    Args:
        header: the value of ``X-Prometheus-Scrape-Timeout-Seconds``; empty if the scraper does not
            send it.
        longest: seconds.

    >>> time_limit("10", 60.0), time_limit("1", 60.0), time_limit("", 8.0), time_limit("10", 2.0)
    (9.5, 0.9, 8.0, 2.0)
    """
    announced = _number(header)
    if announced is None or announced <= 0:
        return longest
    return min(announced - min(_LARGEST_MARGIN, announced / 10), longest)


def _weighed(header: str) -> Iterator[tuple[str, dict[str, str]]]:
    for item in header.split(","):
        value, *options = item.split(";")
        parameters = {}
        for option in options:
            name, _, text = option.partition("=")
            parameters[name.strip().lower()] = text.strip().strip('"')
        if value := value.strip().lower():
            yield value, parameters


def _quality(parameters: dict[str, str]) -> float:
    quality = _number(parameters.get("q", "1"))
    return 0.0 if quality is None else min(max(quality, 0.0), 1.0)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if -1e9 < value < 1e9 else None
