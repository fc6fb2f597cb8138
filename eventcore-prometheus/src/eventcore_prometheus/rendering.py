"""Renders values as lines of text. Sample lines are the same in both formats; only the headers of families differ."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate, chain
from math import inf, isnan
from typing import Final

from eventcore.exporting import Exemplar, HistogramPoint, Labels, NumberPoint
from eventcore_prometheus.naming import ExposedName, Kind

# Larger integers may not be exact as a float, and readers keep floats.
_LARGEST_EXACT: Final = 2**53
# Go writes an exponent when the integer part has more digits than this; Python when it has more than 16.
_LONGEST_INTEGER: Final = 6
_REPLACED: Final = "\ufffd"
_REPLACED_BYTES: Final = _REPLACED.encode()
_UNREADABLE: Final = re.compile("[\x00\ud800-\udfff]")
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


def is_clean(encoded: bytes) -> bool:
    """Whether no label value in rendered lines must be cleaned, or may equal one that was cleaned."""
    return _REPLACED_BYTES not in encoded and b"\x00" not in encoded


def cleaned(value: str) -> str:
    """A text as readers take it. Prometheus stops reading at a zero byte, and surrogates have no encoding."""
    return _UNREADABLE.sub(_REPLACED, value)


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def label_text(names: Iterable[str], labels: Labels, constant: str = "") -> str:
    """``name="value"`` for each label, joined by commas.

    Args:
        names: the Prometheus names, in the order of ``labels``.
        labels: with values that ``cleaned`` would not change.
        constant: text of the labels that come first.
    """
    # An identifier needs no escaping. Almost all label values are identifiers, and this test is cheaper than escaping.
    texts = [
        f'{name}="{value if value.isidentifier() else _escape(value)}"' for name, (_, value) in zip(names, labels, strict=True)
    ]
    return ",".join([constant, *texts] if constant else texts)


def exemplar_text(exemplar: Exemplar) -> str:
    """What follows the value of a sample in OpenMetrics: the trace that the exemplar leads to, its value and its time.

    >>> exemplar_text(Exemplar(0.25, 1_700_000_000_250_000_000, 0xABC, 0x1))
    ' # {trace_id="00000000000000000000000000000abc",span_id="0000000000000001"} 0.25 1700000000.250'
    """
    seconds, nanoseconds = divmod(exemplar.time_ns, 10**9)
    ids = f'trace_id="{exemplar.trace_id:032x}",span_id="{exemplar.span_id:016x}"'
    return f" # {{{ids}}} {_number(exemplar.value)} {seconds}.{nanoseconds // 10**6:03d}"


def number_lines(
    sample: str, names: tuple[str, ...], points: Iterable[NumberPoint], constant: str = "", *, exemplars: bool = False
) -> str:
    """The sample lines of a counter or gauge; with the newest exemplar of each series, which only OpenMetrics can show."""
    if exemplars:
        return "".join(
            [
                f"{sample}{_braces(label_text(names, point.labels, constant))} {_number(point.value)}"
                f"{exemplar_text(point.exemplars[-1]) if point.exemplars else ''}\n"
                for point in points
            ]
        )
    if not names:
        labels = _braces(constant)
        return "".join([f"{sample}{labels} {_number(point.value)}\n" for point in points])
    return "".join([f"{sample}{{{label_text(names, point.labels, constant)}}} {_number(point.value)}\n" for point in points])


def _braces(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


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
        labels = label_text(names, point.labels, constant).replace("%", "%%") if labelled else ""
        counts = accumulate(point.buckets)
        if totals and point.sum >= 0:
            text = whole.replace(_LABELS, labels) if labelled else whole
            lines.append(text % tuple(chain(counts, (_number(point.sum), point.count))))
        else:
            text = buckets.replace(_LABELS, labels) if labelled else buckets
            lines.append(text % tuple(counts))
    return "".join(lines)


def with_exemplars(
    lines: str, template: tuple[str, str], boundaries: tuple[float, ...], points: Iterable[HistogramPoint]
) -> str:
    """The lines of ``histogram_lines`` for these points, with the exemplars behind the buckets that they belong to."""
    # Not `splitlines`, which also splits at characters that a label value may contain.
    marked = lines.split("\n")
    at = 0
    for point in points:
        for exemplar in point.exemplars:
            line = at + bisect_left(boundaries, exemplar.value)
            if " # {" not in marked[line].rpartition('"} ')[2]:
                marked[line] += exemplar_text(exemplar)
        at += len(point.buckets) + (2 if template[1] and point.sum >= 0 else 0)
    return "\n".join(marked)


def family_header(kind: Kind, name: ExposedName, description: str, *, openmetrics: bool, unknown: bool = False) -> str:
    """The lines HELP, TYPE and, in OpenMetrics, UNIT.

    Args:
        kind: of the family.
        name: its names.
        description: any text.
        openmetrics: whether the format is OpenMetrics.
        unknown: whether a counter has no type in OpenMetrics, because the name of its family is in
            use there.
    """
    description = cleaned(description).replace("\\", "\\\\").replace("\n", "\\n")
    if not openmetrics:
        shown = "gauge" if kind == "info" else kind
        return f"# HELP {name.sample} {description}\n# TYPE {name.sample} {shown}\n"
    description = description.replace('"', '\\"')
    if unknown:
        return f"# HELP {name.sample} {description}\n# TYPE {name.sample} unknown\n"
    unit = f"# UNIT {name.family} {name.unit}\n" if name.unit else ""
    return f"# HELP {name.family} {description}\n# TYPE {name.family} {kind}\n{unit}"
