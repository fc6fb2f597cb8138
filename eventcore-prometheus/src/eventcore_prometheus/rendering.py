"""Values as lines of text. The lines of samples are the same in both formats; only the headers of families differ."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate, chain
from math import inf, isnan
from typing import Final

from eventcore.exporting import HistogramPoint, Labels, NumberPoint
from eventcore_prometheus.naming import ExposedName, Kind

_LARGEST_EXACT: Final = 2**53
# Go changes to the exponent where the integer part has more digits than this; Python only at 17.
_LONGEST_INTEGER: Final = 6
_LABELS: Final = "\x00"


def go_float(value: float) -> str:
    """A float as Go writes it, with the shortest digits that give it back; whole numbers keep ``.0``, as OpenMetrics wants.

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
    # Beyond this an int has more digits than any reader keeps, and may not be a float at all.
    if type(value) is int and -_LARGEST_EXACT <= value <= _LARGEST_EXACT:
        return repr(value)
    try:
        return go_float(float(value))
    except OverflowError:
        return "+Inf" if value > 0 else "-Inf"


def _escape(value: str) -> str:
    # A zero byte ends the text for Prometheus, so that one such label would lose the whole scrape.
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"').replace("\x00", "\ufffd")


def label_text(names: Iterable[str], labels: Labels) -> str:
    """``name="value"`` for each label, joined by commas; ``names`` are the exposed names, in the same order."""
    # Almost every label value is a word, and asking so is cheaper than searching it for what must be escaped.
    return ",".join(
        [
            f'{name}="{value if value.isidentifier() else _escape(value)}"'
            for name, (_, value) in zip(names, labels, strict=True)
        ]
    )


def number_lines(sample: str, names: tuple[str, ...], points: Iterable[NumberPoint]) -> str:
    """The samples of a counter or gauge."""
    if not names:
        return "".join([f"{sample} {_number(point.value)}\n" for point in points])
    return "".join([f"{sample}{{{label_text(names, point.labels)}}} {_number(point.value)}\n" for point in points])


def histogram_template(family: str, labelled: bool, boundaries: tuple[float, ...]) -> tuple[str, str]:
    """What ``histogram_lines`` fills in, made once per instrument: the lines of the buckets, and those of sum and count."""
    inner = f"{_LABELS}," if labelled else ""
    braces = f"{{{_LABELS}}}" if labelled else ""
    limits = [*map(go_float, boundaries), "+Inf"]
    buckets = "".join([f'{family}_bucket{{{inner}le="{limit}"}} %d\n' for limit in limits])
    # OpenMetrics has no sum, and so no count, where values may be negative: a reader would take each decrease for a restart.
    if boundaries and boundaries[0] < 0:
        return buckets, ""
    return buckets, f"{family}_sum{braces} %s\n{family}_count{braces} %d\n"


def histogram_lines(template: tuple[str, str], names: tuple[str, ...], points: Iterable[HistogramPoint]) -> str:
    """The samples of a histogram: cumulative buckets, then sum and count."""
    buckets, totals = template
    whole = buckets + totals
    lines: list[str] = []
    for point in points:
        # The labels go in before the numbers, so what looks like a placeholder in them is made to show as itself.
        labels = label_text(names, point.labels).replace("%", "%%")
        counts = accumulate(point.buckets)
        if totals and point.sum >= 0:
            text = whole.replace(_LABELS, labels) if names else whole
            lines.append(text % tuple(chain(counts, (_number(point.sum), point.count))))
        else:
            text = buckets.replace(_LABELS, labels) if names else buckets
            lines.append(text % tuple(counts))
    return "".join(lines)


def family_header(kind: Kind, name: ExposedName, description: str, *, openmetrics: bool) -> str:
    """HELP, TYPE and, in OpenMetrics, UNIT."""
    description = description.replace("\\", "\\\\").replace("\n", "\\n").replace("\x00", "\ufffd")
    if not openmetrics:
        return f"# HELP {name.sample} {description}\n# TYPE {name.sample} {kind}\n"
    description = description.replace('"', '\\"')
    unit = f"# UNIT {name.family} {name.unit}\n" if name.unit else ""
    return f"# HELP {name.family} {description}\n# TYPE {name.family} {kind}\n{unit}"
