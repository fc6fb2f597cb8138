"""The page that scrapes receive: built chunk by chunk during a cycle, published at its end, and not changed afterwards."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, final

from eventcore.exporting import CounterData, GaugeData, HistogramData, MetricData, canonical_name
from eventcore_prometheus.naming import ExposedName, Kind, Names
from eventcore_prometheus.rendering import family_header, histogram_lines, histogram_template, number_lines

# Bytes of one piece: joining and sending in pieces keeps each step short, however large the page is.
_PIECE: Final = 64 * 1024
# The lowest level compresses metrics to a twentieth; higher levels take several times as long for little more.
_GZIP_LEVEL: Final = 1
# zlib's window bits for the gzip format with the largest window.
_GZIP_FORMAT: Final = 31
_END: Final = b"# EOF\n"
_WORKER: Final = "worker"


@final
@dataclass(frozen=True, slots=True)
class _Layout:
    """What is the same for one instrument in every cycle.

    Attributes:
        help: the description, or the name in code if there is none.
        labels: Prometheus names of the labels.
        boundaries: of a histogram's buckets; empty for other kinds.
        histogram: the template for ``histogram_lines``; empty texts for other kinds.
    """

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
    """One metric family of a page.

    Attributes:
        layout: its name and its header in both formats.
        samples: encoded lines, the same in both formats.
        values: the values of the samples; empty unless the builder keeps values.
    """

    layout: _Layout
    samples: list[bytes] = field(default_factory=list[bytes])
    values: list[MetricData] = field(default_factory=list[MetricData])


@final
class Page:
    """All metric families of one cycle. Threads and tasks of several scrapes use it at the same time.

    Args:
        families: sorted by name.
    """

    __slots__ = ("_compressed", "_lock", "families")

    def __init__(self, families: tuple[Family, ...] = ()) -> None:
        self.families = families
        self._compressed: dict[bool, tuple[bytes, ...]] = {}
        self._lock = threading.Lock()

    def blocks(self, openmetrics: bool) -> Iterator[bytes]:
        """The page as a sequence of short byte strings."""
        for family in self.families:
            yield family.layout.openmetrics_header if openmetrics else family.layout.text_header
            yield from family.samples
        if openmetrics:
            yield _END

    def size(self, openmetrics: bool) -> int:
        """The number of bytes of the page without compression."""
        return sum(map(len, self.blocks(openmetrics)))

    def pieces(self, openmetrics: bool) -> Iterator[bytes]:
        """The page in pieces of about 64 KiB, for sending."""
        blocks: list[bytes] = []
        size = 0
        for block in self.blocks(openmetrics):
            blocks.append(block)
            size += len(block)
            if size >= _PIECE:
                yield b"".join(blocks)
                blocks, size = [], 0
        if blocks:
            yield b"".join(blocks)

    def compressed(self, openmetrics: bool) -> tuple[bytes, ...]:
        """The page as gzip, compressed once for all scrapes."""
        # The lock makes all scrapes of this page wait for one result. Only threads wait here, never an event loop.
        with self._lock:
            if openmetrics not in self._compressed:
                gzip = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_FORMAT)
                parts = [gzip.compress(piece) for piece in self.pieces(openmetrics)]
                self._compressed[openmetrics] = tuple(part for part in (*parts, gzip.flush()) if part)
            return self._compressed[openmetrics]


class PageBuilder:
    """Builds a page from the chunks of a cycle. Only the pipeline's worker thread uses it.

    Args:
        names: assigns the Prometheus names.
        on_collision: called once for each instrument that is left out, with its name, its
            Prometheus name, and the instrument that owns the Prometheus name.
        keep_values: whether to keep the values beside the text, for a ``prometheus_client``
            registry.

    Attributes:
        collisions: the number of instruments that are left out.
        worker: the number of this process among several of one service, which becomes a label of
            every series; ``None`` for no such label. Assigned between two cycles.
    """

    def __init__(self, names: Names, on_collision: Callable[[str, str, str], None], *, keep_values: bool = False) -> None:
        self._names = names
        self._on_collision = on_collision
        self._keep_values = keep_values
        self._layouts: dict[tuple[Kind, str], _Layout | None] = {}
        self._families: dict[tuple[Kind, str], Family] = {}
        self.collisions = 0
        self.worker: int | None = None
        self._constant = ""

    def begin(self) -> None:
        """Drop the families of a cycle that ended without ``finish``."""
        self._families = {}
        constant = "" if self.worker is None else f'{_WORKER}="{self.worker}"'
        if constant != self._constant:
            self._constant = constant
            self._layouts = {key: None for key, layout in self._layouts.items() if layout is None}

    def counters(self, chunk: Sequence[CounterData]) -> None:
        for data in chunk:
            if family := self._family("counter", data):
                self._numbers(family, data)

    def gauges(self, chunk: Sequence[GaugeData]) -> None:
        for data in chunk:
            if family := self._family("gauge", data):
                self._numbers(family, data)

    def histograms(self, chunk: Sequence[HistogramData]) -> None:
        for data in chunk:
            if family := self._family("histogram", data, data.boundaries):
                layout = family.layout
                self._keep(family, data, histogram_lines(layout.histogram, layout.labels, data.points, self._constant))

    def finish(self) -> Page:
        """The page of all chunks since ``begin``."""
        families, self._families = self._families, {}
        return Page(tuple(sorted(families.values(), key=lambda family: family.layout.name.family)))

    def _numbers(self, family: Family, data: CounterData | GaugeData) -> None:
        self._keep(family, data, number_lines(family.layout.name.sample, family.layout.labels, data.points, self._constant))

    def _keep(self, family: Family, data: MetricData, lines: str) -> None:
        family.samples.append(lines.encode(errors="replace"))
        if self._keep_values:
            family.values.append(data)

    def _family(self, kind: Kind, data: MetricData, boundaries: tuple[float, ...] = ()) -> Family | None:
        if not data.points:
            return None
        key = (kind, data.name)
        try:
            return self._families[key]
        except KeyError:
            layout = self._layout(key, data, boundaries)
            if layout is None:
                return None
            return self._families.setdefault(key, Family(layout))

    def _label(self, name: str) -> str:
        name = canonical_name(name)
        # As Prometheus names a label of the application that is also one of the target.
        return f"exported_{name}" if self._constant and name == _WORKER else name

    def _layout(self, key: tuple[Kind, str], data: MetricData, boundaries: tuple[float, ...]) -> _Layout | None:
        if key in self._layouts:
            cached = self._layouts[key]
            if cached is None or cached.boundaries == boundaries:
                return cached
        kind, name = key
        exposed = self._names.find(kind, name, data.unit)
        if exposed is None:
            self._layouts[key] = None
            self.collisions += 1
            self._on_collision(name, *self._names.owner(kind, name, data.unit))
            return None
        # Strip spaces, which readers treat differently. Without a description, show the name in code.
        text = data.description.strip() or name
        layout = _Layout(
            kind=kind,
            name=exposed,
            help=text,
            labels=tuple(map(self._label, data.label_names)),
            boundaries=boundaries,
            histogram=histogram_template(exposed.family, bool(data.label_names or self._constant), boundaries)
            if kind == "histogram"
            else ("", ""),
            text_header=family_header(kind, exposed, text, openmetrics=False).encode(errors="replace"),
            openmetrics_header=family_header(kind, exposed, text, openmetrics=True).encode(errors="replace"),
        )
        self._layouts[key] = layout
        return layout
