"""The built-in exporter ``console`` prints metrics and spans for people. It is also an example of a complete plugin."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, final

from eventcore.exporting import CounterData, GaugeData, HistogramData, HistogramPoint, MetricData, Signal, SpanData, hookimpl

_QUANTILES: Final = (0.5, 0.95, 0.99)
_TABLES: Final[tuple[tuple[type[MetricData], list[str]], ...]] = (
    (CounterData, ["counter", "total", "per second"]),
    (GaugeData, ["gauge", "value"]),
    (HistogramData, ["histogram", "count", "mean", *(f"p{q * 100:g}" for q in _QUANTILES)]),
)
# Characters of a line where no terminal sets a limit, and of a name on a terminal however narrow.
_UNLIMITED: Final = 1 << 30
_NARROWEST: Final = 16
_PARTS: Final = re.compile(r"[^{,]*(?:\{|, ?|$)")
_SMALLER_PARTS: Final = re.compile(r"[^.]*(?:\.|$)")
_SCALES: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))


@final
class ConsoleExporter:
    """Prints tables of metrics, and a line for each span.

    Args:
        stream: ``"stderr"`` or ``"stdout"``. Colours are used on a terminal, unless ``NO_COLOR`` is
            set or ``TERM`` is ``dumb``.
        interval: seconds between tables, greater than 0.
        metrics: whether to print metrics.
        spans: whether to print spans.
        rows: the largest number of rows of one table and of spans of one cycle; further ones are
            counted.
    """

    def __init__(
        self,
        stream: Literal["stderr", "stdout"] = "stderr",
        interval: float = 10.0,
        metrics: bool = True,
        spans: bool = True,
        rows: int = 50,
    ) -> None:
        self.interval = interval
        self._stream = stream
        self._shows_metrics = metrics
        self._shows_spans = spans
        self._rows = rows
        self._metrics: list[MetricData] = []
        self._spans: list[SpanData] = []
        self._totals: dict[tuple[str, object], tuple[float, int]] = {}

    # The export hooks only collect what they are given, and `flush` prints the cycle as a whole. If
    # printing fails, the whole cycle is exported again.

    @hookimpl
    def begin(self, signal: Signal) -> None:
        """Drop what a failed cycle of the signal has left."""
        if signal == "metrics":
            self._metrics = []
        else:
            self._spans = []

    @hookimpl
    def export_counters(self, counters: Sequence[CounterData]) -> None:
        self._metrics += counters

    @hookimpl
    def export_gauges(self, gauges: Sequence[GaugeData]) -> None:
        self._metrics += gauges

    @hookimpl
    def export_histograms(self, histograms: Sequence[HistogramData]) -> None:
        self._metrics += histograms

    @hookimpl
    def export_spans(self, spans: Sequence[SpanData]) -> None:
        self._spans += spans

    @hookimpl
    def flush(self, signal: Signal) -> None:
        """Print what the export hooks were given."""
        metrics, self._metrics = (self._metrics, []) if signal == "metrics" else ([], self._metrics)
        spans, self._spans = (self._spans, []) if signal == "spans" else ([], self._spans)
        if lines := [*self._tables(metrics), *self._span_lines(spans)]:
            self._print(lines)
        # After printing: if it fails, the next cycle computes its rates from the same totals.
        if counters := [data for data in metrics if isinstance(data, CounterData)]:
            self._totals = {(c.name, p.labels): (p.value, p.time_ns) for c in counters for p in c.points}

    def _tables(self, metrics: Sequence[MetricData]) -> Iterator[str]:
        for kind, titles in _TABLES if self._shows_metrics else ():
            yield from self._table(titles, [row for data in metrics if isinstance(data, kind) for row in self._rows_of(data)])

    def _span_lines(self, spans: Sequence[SpanData]) -> Iterator[str]:
        if self._shows_spans:
            yield from (self._span_line(span, depth) for span, depth in _as_trees(spans[: self._rows]))
            if (more := len(spans) - self._rows) > 0:
                yield f"... and {more} more spans"

    def _rows_of(self, data: MetricData) -> Iterator[list[str]]:
        for point in data.points:
            row = [f"{data.name}{{{_labels(point.labels)}}}" if point.labels else data.name]
            if isinstance(data, HistogramData) and isinstance(point, HistogramPoint):
                mean = point.sum / point.count if point.count else None
                values = [mean, *(quantile(point, data.boundaries, q) for q in _QUANTILES)]
                row += [f"{point.count:,}", *("-" if value is None else _number(value, data.unit) for value in values)]
            elif not isinstance(point, HistogramPoint):
                row.append(_number(point.value, data.unit))
                if isinstance(data, CounterData):
                    value, since_ns = self._totals.get((data.name, point.labels), (0, 0))
                    # The series may have begun anew since the last table.
                    if since_ns < point.start_time_ns:
                        value, since_ns = 0, point.start_time_ns
                    seconds = (point.time_ns - since_ns) / 1e9
                    row.append(f"{(point.value - value) / seconds:,.1f}" if seconds > 0 else "-")
            yield row

    def _table(self, titles: list[str], rows: list[list[str]]) -> list[str]:
        if not rows:
            return []
        # As they are printed: on a terminal without Unicode, escapes are longer than what they stand for.
        shown = [titles, *([self._encodable(row[0]), *row[1:]] for row in rows[: self._rows])]
        widths = [max(len(row[column]) for row in shown) for column in range(len(titles))]
        # On a terminal, long names are broken, so that the numbers stay under their titles.
        names = [_broken(row[0], self._columns() - sum(widths[1:]) - 2 * len(widths[1:])) for row in shown]
        widths[0] = max(len(part) for parts in names for part in parts)
        lines: list[str] = []
        for row, (first, *more) in zip(shown, names, strict=True):
            lines.append("  ".join([first.ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]))
            lines += more
        omitted = [f"... and {len(rows) - self._rows} more series"] if len(rows) > self._rows else []
        return [self._paint("1", lines[0]), *lines[1:], *omitted, ""]

    def _span_line(self, span: SpanData, depth: int) -> str:
        began = datetime.fromtimestamp(span.start_time_ns / 1e9, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
        duration = _number((span.end_time_ns - span.start_time_ns) / 1e9, "s")
        line = f"{began}  {duration:>9}  {'  ' * depth}{_printable(span.name)}  {_labels(span.attributes)}"
        if not depth:
            # Below a parent, the trace is that of the parent.
            line += f"  trace {span.context.trace_id:032x}"
        return self._paint("31", f"{line}  error: {_printable(span.status_description)}") if span.status == "error" else line

    def _columns(self) -> int:
        import shutil  # takes three milliseconds, and few processes print to a terminal

        stream = getattr(sys, self._stream)
        return shutil.get_terminal_size().columns if stream is not None and stream.isatty() else _UNLIMITED

    def _paint(self, code: str, text: str) -> str:
        stream = getattr(sys, self._stream)
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or stream is None or not stream.isatty()
        return text if plain else f"\x1b[{code}m{text}\x1b[0m"

    def _print(self, lines: list[str]) -> None:
        stream = getattr(sys, self._stream)
        if stream is not None:
            # A single write, so that other threads cannot write between the lines.
            stream.write(self._encodable("\n".join([*lines, ""])))
            stream.flush()

    def _encodable(self, text: str) -> str:
        encoding = getattr(getattr(sys, self._stream), "encoding", None) or "utf-8"
        return text.encode(encoding, "backslashreplace").decode(encoding)


def quantile(point: HistogramPoint, boundaries: Sequence[float], q: float) -> float | None:
    """Estimate a quantile of a histogram: the values of a bucket count as spread evenly over it.
    ``None`` without values.

    Args:
        point: the histogram.
        boundaries: the upper bounds of its buckets but the last.
        q: which quantile, from 0 to 1.

    >>> point = HistogramPoint((), count=4, sum=6.0, min=0.5, max=3.0, buckets=(1, 2, 1), start_time_ns=0, time_ns=1)
    >>> quantile(point, (1.0, 2.0), 0.5)
    1.5
    """
    if not point.count or point.min is None or point.max is None:
        return None
    rank = q * point.count
    below = 0
    for index, count in enumerate(point.buckets):
        if count and below + count >= rank:
            low = max(boundaries[index - 1], point.min) if index else point.min
            high = min(boundaries[index], point.max) if index < len(boundaries) else point.max
            return low + (high - low) * (rank - below) / count
        below += count
    return point.max


def _as_trees(spans: Sequence[SpanData]) -> Iterator[tuple[SpanData, int]]:
    """The spans with how deep each is to be indented: parents first, then their children in the order in which they began.

    A span whose parent is not among them, since it has not ended or belongs to another process, is not indented.
    """
    known = {(span.context.trace_id, span.context.span_id) for span in spans}
    children: dict[tuple[int, int], list[SpanData]] = {}
    roots: list[SpanData] = []
    for span in sorted(spans, key=lambda span: span.start_time_ns):
        parent = span.context.trace_id, span.parent_span_id
        if parent in known and span.parent_span_id != span.context.span_id:
            children.setdefault(parent, []).append(span)
        else:
            roots.append(span)
    # Not recursive: a trace may be deeper than the stack. What ids in a circle leave out comes at the end.
    waiting = [(root, 0) for root in reversed(roots)]
    while waiting:
        span, depth = waiting.pop()
        yield span, depth
        below = children.pop((span.context.trace_id, span.context.span_id), [])
        waiting += [(child, depth + 1) for child in reversed(below)]
    for left in children.values():
        yield from ((span, 0) for span in left)


def _broken(text: str, width: int) -> list[str]:
    """The name of a series in lines of at most ``width``: broken behind braces and commas, and else behind dots.

    >>> _broken("eventcore.store.errors{store=default, operation=append}", 30)
    ['eventcore.store.errors{', '  store=default,', '  operation=append}']
    """
    if len(text) <= width:
        return [text]
    width = max(_NARROWEST, width)
    parts = [
        part
        for piece in _PARTS.findall(text)
        for part in (_SMALLER_PARTS.findall(piece) if len(piece) > width - 2 else [piece])
        if part
    ]
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part.rstrip()) > width:
            lines.append("  ")
        lines[-1] += part
    return [line.rstrip() for line in lines]


def _labels(labels: Iterable[tuple[str, Any]]) -> str:
    return ", ".join(f"{name}={_printable(str(value))}" for name, value in labels)


def _printable(text: str) -> str:
    # A label or a span's name may contain text of a user, and a terminal executes control
    # sequences.
    return text if text.isprintable() else repr(text)[1:-1]


def _number(value: float, unit: str) -> str:
    """
    >>> _number(0.00123, "s"), _number(1234, "{order}"), _number(1536, "By"), _number(0.123456, "1")
    ('1.23 ms', '1,234', '1,536 By', '0.1235')
    """
    if unit == "s" and value:
        scale, name = next((scale for scale in _SCALES if abs(value) >= scale[0]), _SCALES[-1])
        return f"{value / scale:,.3g} {name}" if abs(value) < 1000 else f"{value:,.0f} s"
    text = f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return text if unit in ("", "1") or unit.startswith("{") else f"{text} {unit}"
