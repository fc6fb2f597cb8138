"""Points as lines of InfluxDB's line protocol: ``measurement,tag=value field=1 1700000000000000000``."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

from eventcore.exporting import CounterData, GaugeData, HistogramData, HistogramPoint, Labels, NumberPoint


def number_line(data: CounterData | GaugeData, point: NumberPoint, tags: Mapping[str, str]) -> str:
    """The line of a counter or gauge; empty if the value is not finite.

    Whole numbers are written as floats, too: a field keeps the type that it had first.
    """
    if not isfinite(point.value):
        return ""
    return f"{_series(data.name, point.labels, tags)} value={float(point.value)!r} {point.time_ns}"


def histogram_line(data: HistogramData, point: HistogramPoint, tags: Mapping[str, str]) -> str:
    """The line of a histogram."""
    numbers = {"sum": point.sum, "min": point.min, "max": point.max}
    fields = [f"count={point.count}i"]
    fields += [f"{name}={float(value)!r}" for name, value in numbers.items() if value is not None and isfinite(value)]
    bounds = [*map(repr, data.boundaries), "inf"] if point.buckets else []
    fields += [f"le_{bound}={count}i" for bound, count in zip(bounds, point.buckets, strict=True)]
    return f"{_series(data.name, point.labels, tags)} {','.join(fields)} {point.time_ns}"


def tag_key(name: str) -> str:
    """The tag of a label. InfluxDB drops points with a tag called ``time``.

    >>> tag_key("command.type"), tag_key("time")
    ('command.type', 'time_')
    """
    return "time_" if name == "time" else _escaped(name, ",= ")


def tag_text(text: str) -> str:
    r"""The value of a tag as InfluxDB keeps it: it has no line breaks, and no backslash at the end.

    >>> tag_text("one\ntwo"), tag_text("C:\\")
    ('one\\ntwo', 'C:\\_')
    """
    text = text.replace("\n", "\\n")
    return f"{text}_" if text.endswith("\\") else text


def _series(name: str, labels: Labels, tags: Mapping[str, str]) -> str:
    # A tag without a value is left out, as the protocol demands; a query shows it as empty.
    pairs = [(key, tag_text(str(value))) for key, value in (*tags.items(), *labels)]
    return ",".join([_escaped(name, ", "), *(f"{tag_key(key)}={_escaped(text, ',= ')}" for key, text in pairs if text)])


def _escaped(text: str, characters: str) -> str:
    return "".join(f"\\{character}" if character in characters else character for character in text)
