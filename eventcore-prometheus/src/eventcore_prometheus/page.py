"""The page that a scrape gets: made chunk by chunk while a cycle runs, published whole at its end, and never changed again."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, final

from eventcore.exporting import CounterData, GaugeData, HistogramData, MetricData, canonical_name
from eventcore_prometheus.naming import ExposedName, Kind, Names
from eventcore_prometheus.rendering import family_header, histogram_lines, histogram_template, number_lines

# Joining and sending in pieces keeps each step short, however large the page is.
_PIECE: Final = 64 * 1024
# Metrics compress to a twentieth on the lowest level; the higher ones cost several times as much for little more.
_GZIP_LEVEL: Final = 1
_GZIP_FORMAT: Final = 31
_END: Final = b"# EOF\n"


@final
@dataclass(frozen=True, slots=True)
class _Layout:
    """What the page needs to know of one instrument; the same in every cycle."""

    kind: Kind
    name: ExposedName
    help: str
    labels: tuple[str, ...]
    boundaries: tuple[float, ...]
    histogram: tuple[str, str]
    text_header: bytes
    openmetrics_header: bytes


@final
@dataclass(frozen=True, slots=True)
class Family:
    """One metric family: its header in both formats, and its samples, which are the same in both."""

    layout: _Layout
    samples: list[bytes] = field(default_factory=list[bytes])
    values: list[MetricData] = field(default_factory=list[MetricData])


@final
class Page:
    """All families of one cycle.

    Args:
        families: sorted by name.
    """

    __slots__ = ("_compressed", "_lock", "families")

    def __init__(self, families: tuple[Family, ...] = ()) -> None:
        self.families = families
        self._compressed: dict[bool, tuple[bytes, ...]] = {}
        self._lock = threading.Lock()

    def blocks(self, openmetrics: bool) -> Iterator[bytes]:
        """The page in the order of its lines."""
        for family in self.families:
            yield family.layout.openmetrics_header if openmetrics else family.layout.text_header
            yield from family.samples
        if openmetrics:
            yield _END

    def size(self, openmetrics: bool) -> int:
        """The number of bytes, not compressed."""
        return sum(map(len, self.blocks(openmetrics)))

    def pieces(self, openmetrics: bool) -> Iterator[bytes]:
        """The page in pieces fit for sending."""
        waiting: list[bytes] = []
        size = 0
        for block in self.blocks(openmetrics):
            waiting.append(block)
            size += len(block)
            if size >= _PIECE:
                yield b"".join(waiting)
                waiting, size = [], 0
        if waiting:
            yield b"".join(waiting)

    def compressed(self, openmetrics: bool) -> tuple[bytes, ...]:
        """The page as gzip, made once for all who ask for it."""
        with self._lock:
            if openmetrics not in self._compressed:
                gzip = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_FORMAT)
                parts = [gzip.compress(piece) for piece in self.pieces(openmetrics)]
                self._compressed[openmetrics] = tuple(part for part in (*parts, gzip.flush()) if part)
            return self._compressed[openmetrics]


class PageBuilder:
    """Turns the chunks of a cycle into a page.

    Args:
        names: gives the exposed names.
        on_collision: called once for each instrument that is left out: its name, the exposed name, and who has that.
        keep_values: keep the values beside the text, for a registry that wants them as objects.
    """

    def __init__(self, names: Names, on_collision: Callable[[str, str, str], None], *, keep_values: bool = False) -> None:
        self._names = names
        self._on_collision = on_collision
        self._keep_values = keep_values
        self._layouts: dict[tuple[Kind, str], _Layout | None] = {}
        self._families: dict[tuple[Kind, str], Family] = {}
        self._first: tuple[object, ...] = ()
        self.collisions = 0

    def counters(self, chunk: Sequence[CounterData]) -> None:
        """Add totals."""
        for data in chunk:
            if family := self._family("counter", data):
                self._numbers(family, data)

    def gauges(self, chunk: Sequence[GaugeData]) -> None:
        """Add current values."""
        for data in chunk:
            if family := self._family("gauge", data):
                self._numbers(family, data)

    def histograms(self, chunk: Sequence[HistogramData]) -> None:
        """Add distributions."""
        for data in chunk:
            if family := self._family("histogram", data, data.boundaries):
                layout = family.layout
                self._keep(family, data, histogram_lines(layout.histogram, layout.labels, data.points))

    def finish(self) -> Page:
        """The page of what was added since the last one."""
        families, self._families, self._first = self._families, {}, ()
        return Page(tuple(sorted(families.values(), key=lambda family: family.layout.name.family)))

    def _numbers(self, family: Family, data: CounterData | GaugeData) -> None:
        self._keep(family, data, number_lines(family.layout.name.sample, family.layout.labels, data.points))

    def _keep(self, family: Family, data: MetricData, lines: str) -> None:
        family.samples.append(lines.encode(errors="replace"))
        if self._keep_values:
            family.values.append(data)

    def _family(self, kind: Kind, data: MetricData, boundaries: tuple[float, ...] = ()) -> Family | None:
        if not data.points:
            return None
        key = (kind, data.name)
        self._begin_again_where_needed(key, data)
        try:
            return self._families[key]
        except KeyError:
            layout = self._layout(key, data, boundaries)
            if layout is None:
                return None
            return self._families.setdefault(key, Family(layout))

    def _begin_again_where_needed(self, key: tuple[Kind, str], data: MetricData) -> None:
        """Forget a cycle that never came to its flush: the next one begins with the same series, or at another time."""
        point = data.points[0]
        if not self._first:
            self._first = (key, point.labels, point.time_ns)
        elif point.time_ns != self._first[2] or (key, point.labels) == self._first[:2]:
            self._families.clear()
            self._first = (key, point.labels, point.time_ns)

    def _layout(self, key: tuple[Kind, str], data: MetricData, boundaries: tuple[float, ...]) -> _Layout | None:
        if key in self._layouts:
            known = self._layouts[key]
            if known is None or known.boundaries == boundaries:
                return known
        kind, name = key
        exposed = self._names.find(kind, name, data.unit)
        if exposed is None:
            self._layouts[key] = None
            self.collisions += 1
            self._on_collision(name, *self._names.owner(kind, name, data.unit))
            return None
        # Readers differ in what they make of spaces around the text. Without a description, the name in code helps to find it.
        text = data.description.strip() or name
        layout = _Layout(
            kind=kind,
            name=exposed,
            help=text,
            labels=tuple(map(canonical_name, data.label_names)),
            boundaries=boundaries,
            histogram=histogram_template(exposed.family, bool(data.label_names), boundaries)
            if kind == "histogram"
            else ("", ""),
            text_header=family_header(kind, exposed, text, openmetrics=False).encode(errors="replace"),
            openmetrics_header=family_header(kind, exposed, text, openmetrics=True).encode(errors="replace"),
        )
        self._layouts[key] = layout
        return layout
