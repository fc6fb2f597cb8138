"""Renders values as lines of text. Sample lines are the same in both formats; only the headers of families differ."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate, chain
from math import inf, isnan
from typing import Final

from eventcore.exporting import HistogramPoint, Labels, NumberPoint
from eventcore_prometheus.naming import ExposedName, Kind

# Larger integers may not be exact as a float, and readers keep floats.
_LARGEST_EXACT: Final = 2**53
# Go writes an exponent when the integer part has more digits than this; Python when it has more than 16.
_LONGEST_INTEGER: Final = 6
# Placeholder for the labels in a template. Escaped label values never contain it.
_LABELS: Final = "\x00"


def go_float(value: float) -> str:
    """A float as Go writes it, with the fewest digits that are read back as the same float.

    Whole numbers keep ``.0``, as OpenMetrics requires for bucket boundaries.

    >>> go_float(0.25), go_float(1.0), go_float(16777216.0), go_float(1e-7), go_float(float("-inf"))
    ('0.25', '1.0', '1.6777216e+07', '1e-07', '-Inf')
    """
    if value == inf:
        return "+Inf"
    if value == -inf:
        return "-Inf"
    if isnan(value):
        return "NaN"
    text = repr(value)
    sign, digits = ("-", text[1:]) if text[0] == "-" else ("", text)
    whole, dot, fraction = digits.partition(".")
    if not dot or len(whole) <= _LONGEST_INTEGER or "e" in fraction:
        return text
    mantissa = f"{whole[0]}.{whole[1:]}{fraction}".rstrip("0").removesuffix(".")
    return f"{sign}{mantissa}e+{len(whole) - 1:02d}"


def _number(value: float) -> str:
    # A larger int is rendered as a float, because readers keep no more digits; an int may also be too large for a float.
    if type(value) is int and -_LARGEST_EXACT <= value <= _LARGEST_EXACT:
        return repr(value)
    try:
        return go_float(float(value))
    except OverflowError:
        return "+Inf" if value > 0 else "-Inf"


def _escape(value: str) -> str:
    # Prometheus stops reading at a zero byte: replace it, so that one label value does not lose the whole scrape.
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"').replace("\x00", "\ufffd")


def label_text(names: Iterable[str], labels: Labels, constant: str = "") -> str:
    """``name="value"`` for each label, joined by commas. ``names`` are the Prometheus names, in the order of ``labels``.

    ``constant`` is the text of a label that all series have; it comes first.
    """
    # An identifier needs no escaping. Almost all label values are identifiers, and this test is cheaper than escaping.
    return ",".join(
        ([constant] if constant else [])
        + [
            f'{name}="{value if value.isidentifier() else _escape(value)}"'
            for name, (_, value) in zip(names, labels, strict=True)
        ]
    )


def number_lines(sample: str, names: tuple[str, ...], points: Iterable[NumberPoint], constant: str = "") -> str:
    """The sample lines of a counter or gauge."""
    if not names and not constant:
        return "".join([f"{sample} {_number(point.value)}\n" for point in points])
    return "".join([f"{sample}{{{label_text(names, point.labels, constant)}}} {_number(point.value)}\n" for point in points])


def histogram_template(family: str, labelled: bool, boundaries: tuple[float, ...]) -> tuple[str, str]:
    """The templates for ``histogram_lines``, made once per instrument: bucket lines, and the lines of sum and count."""
    inner = f"{_LABELS}," if labelled else ""
    braces = f"{{{_LABELS}}}" if labelled else ""
    limits = [*map(go_float, boundaries), "+Inf"]
    buckets = "".join([f'{family}_bucket{{{inner}le="{limit}"}} %d\n' for limit in limits])
    # OpenMetrics allows no sum, and so no count, where values may be negative: readers take a decrease of a sum for a restart.
    if boundaries and boundaries[0] < 0:
        return buckets, ""
    return buckets, f"{family}_sum{braces} %s\n{family}_count{braces} %d\n"


def histogram_lines(
    template: tuple[str, str], names: tuple[str, ...], points: Iterable[HistogramPoint], constant: str = ""
) -> str:
    """The sample lines of a histogram: cumulative buckets, then sum and count."""
    buckets, totals = template
    whole = buckets + totals
    labelled = bool(names or constant)
    lines: list[str] = []
    for point in points:
        # Labels are inserted before the numbers are formatted with `%`: escape the percent signs in them.
        labels = label_text(names, point.labels, constant).replace("%", "%%")
        counts = accumulate(point.buckets)
        if totals and point.sum >= 0:
            text = whole.replace(_LABELS, labels) if labelled else whole
            lines.append(text % tuple(chain(counts, (_number(point.sum), point.count))))
        else:
            text = buckets.replace(_LABELS, labels) if labelled else buckets
            lines.append(text % tuple(counts))
    return "".join(lines)


def family_header(kind: Kind, name: ExposedName, description: str, *, openmetrics: bool) -> str:
    """The lines HELP, TYPE and, in OpenMetrics, UNIT."""
    description = description.replace("\\", "\\\\").replace("\n", "\\n").replace("\x00", "\ufffd")
    if not openmetrics:
        return f"# HELP {name.sample} {description}\n# TYPE {name.sample} {kind}\n"
    description = description.replace('"', '\\"')
    unit = f"# UNIT {name.family} {name.unit}\n" if name.unit else ""
    return f"# HELP {name.family} {description}\n# TYPE {name.family} {kind}\n{unit}"
