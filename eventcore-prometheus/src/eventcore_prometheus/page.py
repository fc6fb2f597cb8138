"""The page that scrapes receive: built chunk by chunk during a cycle, published at its end, and not changed afterwards."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

import msgspec

from eventcore.exporting import (
    CounterData,
    GaugeData,
    HiddenKind,
    HistogramData,
    HistogramPoint,
    Labels,
    MetricData,
    canonical_name,
)
from eventcore_prometheus.naming import ExposedName, Instrument, Kind, Names, unknown_in_openmetrics
from eventcore_prometheus.rendering import (
    cleaned,
    family_header,
    histogram_lines,
    histogram_template,
    is_clean,
    number_lines,
    with_exemplars,
)

# Bytes of one piece: joining and sending in pieces keeps each step short, however large the page is.
_PIECE: Final = 64 * 1024
# The lowest level compresses metrics to a twentieth; higher levels take several times as long for little more.
_GZIP_LEVEL: Final = 1
# zlib's window bits for the gzip format with the largest window.
_GZIP_FORMAT: Final = 31
_END: Final = b"# EOF\n"
_WORKER: Final = "worker"
# Before the name of a label that another one has already, as Prometheus itself does it.
_EXPORTED: Final = "exported_"


@final
class Family(msgspec.Struct):
    """One metric family of a page.

    Attributes:
        kind: of its instrument.
        name: its names.
        help: the description, or the name in code if there is none.
        text_header: the lines before the samples in the text format.
        openmetrics_header: the lines before the samples in OpenMetrics.
        created: the place of its instrument in the order of creation; 0 when it is not known.
        samples: encoded lines in the text format.
        openmetrics: the same lines with exemplars, where the chunk has any; else the same object.
        labels: Prometheus names of the labels.
        values: the values of the samples; empty unless the builder keeps values.
    """

    kind: Kind
    name: ExposedName
    help: str
    text_header: bytes
    openmetrics_header: bytes
    created: int = 0
    samples: list[bytes] = msgspec.field(default_factory=list[bytes])
    openmetrics: list[bytes] = msgspec.field(default_factory=list[bytes])
    labels: tuple[str, ...] = ()
    values: list[MetricData] = msgspec.field(default_factory=list[MetricData])

    def copy(self) -> Family:
        """The same family, whose lists may be extended."""
        return msgspec.structs.replace(
            self, samples=self.samples.copy(), openmetrics=self.openmetrics.copy(), values=self.values.copy()
        )


class _Dumped(msgspec.Struct, array_like=True):
    """A family without its values, as ``Page.dump`` writes it."""

    kind: Kind
    name: tuple[str, str, str]
    help: str
    text_header: bytes
    openmetrics_header: bytes
    created: int
    samples: bytes
    # Empty when they are the same.
    openmetrics: bytes


_NUMBERS: Final[dict[type, Kind]] = {CounterData: "counter", GaugeData: "gauge"}
_decoder: Final = msgspec.msgpack.Decoder(list[_Dumped])


@final
class Page:
    """All metric families of one cycle. Threads and tasks of several scrapes use it at the same time.

    Args:
        families: sorted by name.
        unknown: the samples of the counters that have no type in OpenMetrics.
        openmetrics: whether the page can be OpenMetrics; if not, it is served as text.
    """

    __slots__ = ("_compressed", "_lock", "families", "openmetrics", "unknown")

    def __init__(
        self, families: tuple[Family, ...] = (), unknown: frozenset[str] = frozenset(), openmetrics: bool = True
    ) -> None:
        self.families = families
        self.unknown = unknown
        self.openmetrics = openmetrics
        self._compressed: dict[bool, tuple[bytes, ...]] = {}
        self._lock = threading.Lock()

    def blocks(self, openmetrics: bool) -> Iterator[bytes]:
        """The page as a sequence of short byte strings."""
        for family in self.families:
            if not openmetrics:
                yield family.text_header
                yield from family.samples
            elif family.name.sample in self.unknown:
                # A family without a type cannot have exemplars.
                header = family_header(family.kind, family.name, family.help, openmetrics=True, unknown=True)
                yield header.encode(errors="replace")
                yield from family.samples
            else:
                yield family.openmetrics_header
                yield from family.openmetrics
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

    def dump(self) -> bytes:
        """The page for another process, which reads it with ``load_families``; without the values."""
        return msgspec.msgpack.encode(
            [
                _Dumped(
                    each.kind,
                    (each.name.family, each.name.sample, each.name.unit),
                    each.help,
                    each.text_header,
                    each.openmetrics_header,
                    each.created,
                    b"".join(each.samples),
                    b"".join(each.openmetrics) if each.openmetrics != each.samples else b"",
                )
                for each in self.families
            ]
        )


def load_families(dumped: bytes) -> Iterator[Family]:
    """The families of a page that another process has dumped.

    Raises:
        msgspec.DecodeError: these are not the bytes of a page.
    """
    for each in _decoder.decode(dumped):
        yield Family(
            each.kind,
            ExposedName(*each.name),
            each.help,
            each.text_header,
            each.openmetrics_header,
            each.created,
            [each.samples],
            [each.openmetrics or each.samples],
        )


def put_together(families: Iterable[Family]) -> Page:
    """One page of the families of several, whose series differ in a label that each of them has.

    A family whose name has another kind on an earlier page is left out.
    """
    found: dict[str, Family] = {}
    for family in families:
        first = found.get(family.name.sample)
        if first is None:
            found[family.name.sample] = family.copy()
        elif first.kind == family.kind:
            first.samples += family.samples
            first.openmetrics += family.openmetrics
            first.values += family.values
    ordered = tuple(sorted(found.values(), key=lambda family: family.name.family))
    return Page(ordered, *unknown_in_openmetrics(_by_age(ordered)))


def _by_age(families: Iterable[Family]) -> list[tuple[Kind, ExposedName]]:
    return [(each.kind, each.name) for each in sorted(families, key=lambda each: each.created or 1 << 60)]


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
    created: int


@final
@dataclass(slots=True)
class _Unclean:
    """The points of one family whose label values are not shown as they are, by the values that are shown."""

    data: MetricData
    points: dict[Labels, Any] = field(default_factory=dict[Labels, Any])


@final
class PageBuilder:
    """Builds a page from the chunks of a cycle. Only the pipeline's worker thread uses it.

    Args:
        names: assigns the Prometheus names.
        on_hidden: called once for each instrument that is left out, as a whole or in part, with its
            name, the reason, and the kind of the reason.
        keep_values: whether to keep the values beside the text, for a ``prometheus_client``
            registry.

    Attributes:
        worker: the number of this process among several of one service, which becomes a label of
            every series; ``None`` for no such label. Assigned between two cycles.
        hidden: the instruments that are left out, by the kind of the reason.
    """

    def __init__(
        self,
        names: Names,
        on_hidden: Callable[[str, str, HiddenKind], object],
        *,
        keep_values: bool = False,
    ) -> None:
        self._names = names
        self._on_hidden = on_hidden
        self._keep_values = keep_values
        self.worker: int | None = None
        self._constant = ""
        self._layouts: dict[Instrument, _Layout | None] = {}
        self._families: dict[Instrument, Family] = {}
        self._unclean: dict[Instrument, _Unclean] = {}
        self._resolved: tuple[tuple[str, ...], frozenset[str], bool] = ((), frozenset(), True)
        self.hidden: dict[str, HiddenKind] = {}

    def begin(self) -> None:
        """Drop the families of a cycle that ended without ``finish``."""
        self._families, self._unclean = {}, {}
        constant = "" if self.worker is None else f'{_WORKER}="{self.worker}"'
        if constant != self._constant:
            self._constant = constant
            self._layouts = {key: None for key, layout in self._layouts.items() if layout is None}

    def counters(self, chunk: Sequence[CounterData]) -> None:
        for data in chunk:
            self._add("counter", data)

    def gauges(self, chunk: Sequence[GaugeData]) -> None:
        for data in chunk:
            self._add("gauge", data)

    def histograms(self, chunk: Sequence[HistogramData]) -> None:
        for data in chunk:
            self._add("histogram", data)

    def about(self, info: GaugeData | None, metrics: Iterable[MetricData]) -> None:
        """Add what a page says about itself, when everything else is there.

        Args:
            info: a family of the kind ``info``, such as ``target_info``.
            metrics: families of the other kinds.
        """
        if info is not None:
            self._add("info", info)
        for data in metrics:
            self._add("histogram" if isinstance(data, HistogramData) else _NUMBERS[type(data)], data)

    def finish(self) -> Page:
        """The page of all chunks since ``begin``."""
        for instrument, unclean in self._unclean.items():
            self._render(instrument, msgspec.structs.replace(unclean.data, points=tuple(unclean.points.values())))
        families, self._families, self._unclean = self._families, {}, {}
        ordered = tuple(sorted(families.values(), key=lambda family: family.name.family))
        names = tuple([family.name.sample for family in ordered])
        if names != self._resolved[0]:
            self._resolved = (names, *unknown_in_openmetrics(_by_age(ordered)))
        return Page(ordered, *self._resolved[1:])

    def _add(self, kind: Kind, data: MetricData) -> None:
        instrument = (kind, data.name)
        if data.points and self._layout(instrument, data) is not None:
            self._render(instrument, data, check=True)

    def _render(self, instrument: Instrument, data: MetricData, *, check: bool = False) -> None:
        layout = self._layouts[instrument]
        assert layout is not None  # only instruments with a layout come here
        exemplars = any(point.exemplars for point in data.points)
        if isinstance(data, HistogramData):
            lines = histogram_lines(layout.histogram, layout.labels, data.points, self._constant)
        else:
            lines = number_lines(layout.name.sample, layout.labels, data.points, self._constant)
        try:
            encoded = lines.encode()
        except UnicodeEncodeError:
            encoded = b"\x00"
        if check and not is_clean(encoded):
            if clean := self._set_unclean_aside(instrument, data):
                self._render(instrument, msgspec.structs.replace(data, points=clean))
            return
        family = self._families.get(instrument)
        if family is None:
            family = Family(
                layout.kind,
                layout.name,
                layout.help,
                layout.text_header,
                layout.openmetrics_header,
                layout.created,
                labels=layout.labels,
            )
            self._families[instrument] = family
        family.samples.append(encoded)
        family.openmetrics.append(self._openmetrics(layout, data, lines).encode() if exemplars else encoded)
        if self._keep_values:
            family.values.append(data)

    def _openmetrics(self, layout: _Layout, data: MetricData, lines: str) -> str:
        """The lines with exemplars, which gauges cannot have."""
        if isinstance(data, HistogramData):
            return with_exemplars(lines, layout.histogram, layout.boundaries, data.points)
        if layout.kind != "counter":
            return lines
        return number_lines(layout.name.sample, layout.labels, data.points, self._constant, exemplars=True)

    def _set_unclean_aside(self, instrument: Instrument, data: MetricData) -> tuple[Any, ...]:
        """The points whose label values can be shown as they are.

        All others wait for ``finish``, because the values of two may be equal when they are cleaned.
        Their texts contain the replacement character, and no other text does.
        """
        clean: list[Any] = []
        for point in data.points:
            labels = tuple([(name, cleaned(value)) for name, value in point.labels])
            if not any("\ufffd" in value for _, value in labels):
                clean.append(point)
                continue
            unclean = self._unclean.setdefault(instrument, _Unclean(data))
            shown = msgspec.structs.replace(point, labels=labels)
            other = unclean.points.get(labels)
            if other is not None and isinstance(data, GaugeData) and not data.additive:
                self._report(data.name, "two of its series have equal label values without unreadable characters", "invalid")
            else:
                unclean.points[labels] = shown if other is None else sum_of(other, shown)
        return tuple(clean)

    def _layout(self, instrument: Instrument, data: MetricData) -> _Layout | None:
        boundaries = data.boundaries if isinstance(data, HistogramData) else ()
        if instrument in self._layouts:
            cached = self._layouts[instrument]
            if cached is None or cached.boundaries == boundaries:
                return cached
        kind, name = instrument
        exposed = self._names.find(kind, name, data.unit, data.created)
        for loser in [lost for lost in self._names.lost if self._layouts.get(lost) is not None]:
            # This instrument was created before, and comes to a page for the first time.
            self._layouts[loser] = None
            self._families.pop(loser, None)
            self._unclean.pop(loser, None)
            self._hide(loser)
        if exposed is None:
            self._layouts[instrument] = None
            self._hide(instrument)
            return None
        # Strip spaces, which readers treat differently. Without a description, show the name in code.
        text = cleaned(data.description).strip() or name
        labels = self._label_names(data.label_names, kind)
        layout = _Layout(
            kind=kind,
            name=exposed,
            help=text,
            labels=labels,
            boundaries=boundaries,
            histogram=histogram_template(exposed.family, bool(labels or self._constant), boundaries)
            if kind == "histogram"
            else ("", ""),
            text_header=family_header(kind, exposed, text, openmetrics=False).encode(errors="replace"),
            openmetrics_header=family_header(kind, exposed, text, openmetrics=True).encode(errors="replace"),
            created=data.created,
        )
        self._layouts[instrument] = layout
        return layout

    def _label_names(self, names: Sequence[str], kind: Kind) -> tuple[str, ...]:
        """Prometheus names of labels, each of them once."""
        used = {"le"} if kind == "histogram" else set[str]()
        if self._constant:
            used.add(_WORKER)
        shown: list[str] = []
        for name in map(canonical_name, names):
            while name in used:
                name = _EXPORTED + name
            used.add(name)
            shown.append(name)
        return tuple(shown)

    def _hide(self, instrument: Instrument) -> None:
        sample, owner = self._names.lost[instrument]
        self._report(
            instrument[1],
            f"its name {sample} is in use by {owner!r}; give one of them another name (setting 'rename')",
            "collision",
        )

    def _report(self, name: str, reason: str, kind: HiddenKind) -> None:
        if name not in self.hidden:
            self.hidden[name] = kind
            self._on_hidden(name, reason, kind)


def sum_of(one: Any, other: Any) -> Any:
    """Two points as one, with the labels of the first."""
    if not isinstance(one, HistogramPoint):
        return msgspec.structs.replace(one, value=one.value + other.value, exemplars=other.exemplars or one.exemplars)
    return msgspec.structs.replace(
        one,
        count=one.count + other.count,
        sum=one.sum + other.sum,
        buckets=tuple(map(int.__add__, one.buckets, other.buckets)),
        exemplars=other.exemplars or one.exemplars,
    )
