"""What collect returns: plain frozen values, the same for every exporter.

``gc=False`` spares the garbage collector from walking thousands of points. It is safe because none of these values can be part
of a reference cycle.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, TypeAlias, final

import msgspec

from eventcore.recording.trace_context import TraceContext
from eventcore.version import __version__

Labels: TypeAlias = tuple[tuple[str, str], ...]
"""Label names with their values, in the order of the instrument's ``label_names``; ``dict(labels)`` makes a mapping."""

AttributeValue: TypeAlias = str | bool | int | float | tuple[str, ...] | tuple[bool, ...] | tuple[int, ...] | tuple[float, ...]
Attributes: TypeAlias = tuple[tuple[str, AttributeValue], ...]
SpanKind: TypeAlias = Literal["internal", "server", "client", "producer", "consumer"]
SpanStatus: TypeAlias = Literal["unset", "ok", "error"]
PointTemporality: TypeAlias = Literal["cumulative", "delta"]
"""What a point counts: everything since its series began, or what was added since the last committed cycle."""


@final
class Scope(msgspec.Struct, frozen=True, gc=False):
    """The part of a program that records something, such as a library: OpenTelemetry's instrumentation scope.

    Attributes:
        name: for example the name of a package.
        version: its version, or empty.
        schema_url: where the meaning of its names is described, or empty.
    """

    name: str
    version: str = ""
    schema_url: str = ""


EVENTCORE: Final = Scope("eventcore", __version__)
"""The scope of eventcore's own instruments and spans, and of those for which no other one is named."""


@final
class Exemplar(msgspec.Struct, frozen=True, gc=False):
    """One measurement of a series that was made inside a sampled span: it leads from a metric to a trace."""

    value: int | float
    time_ns: int
    trace_id: int
    span_id: int


@final
class NumberPoint(msgspec.Struct, frozen=True, gc=False):
    """The value of one series of a counter or gauge.

    A counter's value is the total since ``start_time_ns``, when its series began; times are nanoseconds since the Unix epoch.
    """

    labels: Labels
    value: int | float
    start_time_ns: int
    time_ns: int
    exemplars: tuple[Exemplar, ...] = ()


@final
class HistogramPoint(msgspec.Struct, frozen=True, gc=False):
    """One series of a histogram since ``start_time_ns``: ``count``, ``sum`` and ``buckets`` agree with each other.

    ``buckets[i]`` counts the values in ``(boundaries[i-1], boundaries[i]]``; the last bucket counts the values above
    every boundary. Buckets are not cumulative. ``min`` and ``max`` are ``None`` when ``count`` is 0.
    ``exemplars`` holds at most one for each bucket.
    """

    labels: Labels
    count: int
    sum: float
    min: float | None
    max: float | None
    buckets: tuple[int, ...]
    start_time_ns: int
    time_ns: int
    exemplars: tuple[Exemplar, ...] = ()


class _Described(msgspec.Struct, frozen=True, gc=False):
    """The fields that the data of every metric begin with."""

    name: str
    unit: str
    description: str
    label_names: tuple[str, ...]


@final
class CounterData(_Described, frozen=True, gc=False):
    """A monotonic counter: totals that only grow, or what was added to them.

    ``observed`` is true when a callback gives the totals.
    """

    points: tuple[NumberPoint, ...]
    scope: Scope = EVENTCORE
    temporality: PointTemporality = "cumulative"
    observed: bool = False


@final
class GaugeData(_Described, frozen=True, gc=False):
    """A current value; ``additive`` is true for an up-down counter, whose series may be summed."""

    points: tuple[NumberPoint, ...]
    additive: bool = False
    scope: Scope = EVENTCORE


@final
class HistogramData(_Described, frozen=True, gc=False):
    """A distribution over fixed ``boundaries`` (ascending upper bounds, inclusive; the last bucket has none)."""

    boundaries: tuple[float, ...]
    points: tuple[HistogramPoint, ...]
    scope: Scope = EVENTCORE
    temporality: PointTemporality = "cumulative"


MetricData: TypeAlias = CounterData | GaugeData | HistogramData


@final
class Collection(msgspec.Struct, frozen=True):
    """All series at about one time: each series is consistent in itself, but not with the others."""

    time_ns: int
    counters: tuple[CounterData, ...]
    gauges: tuple[GaugeData, ...]
    histograms: tuple[HistogramData, ...]

    def __iter__(self) -> Iterator[MetricData]:
        yield from self.counters
        yield from self.gauges
        yield from self.histograms


@final
class SpanEvent(msgspec.Struct, frozen=True, gc=False):
    """Something that happened at one time within a span."""

    name: str
    time_ns: int
    attributes: Attributes = ()
    dropped_attributes: int = 0


@final
class SpanLink(msgspec.Struct, frozen=True, gc=False):
    """A span of this or another trace that caused this one without being its parent."""

    context: TraceContext
    attributes: Attributes = ()
    dropped_attributes: int = 0


@final
class SpanData(msgspec.Struct, frozen=True, gc=False):
    """A finished span. ``parent_span_id`` is 0 for the root of a trace; times are nanoseconds since the Unix epoch.

    ``parent_is_remote`` says whether the parent is a span of another process. ``correlation_id`` and ``causation_id`` are the
    ones of event sourcing, ``None`` when the span has none.
    """

    name: str
    kind: SpanKind
    context: TraceContext
    parent_span_id: int
    start_time_ns: int
    end_time_ns: int
    attributes: Attributes = ()
    events: tuple[SpanEvent, ...] = ()
    links: tuple[SpanLink, ...] = ()
    status: SpanStatus = "unset"
    status_description: str = ""
    correlation_id: str | None = None
    causation_id: str | None = None
    dropped_attributes: int = 0
    dropped_events: int = 0
    dropped_links: int = 0
    scope: Scope = EVENTCORE
    parent_is_remote: bool = False


@final
class Resource(msgspec.Struct, frozen=True):
    """What produces the telemetry: ``service.name``, ``service.instance.id`` and the attributes of the configuration.

    >>> Resource((("service.name", "shop"),)).get("service.name")
    'shop'
    """

    attributes: Attributes

    def get(self, name: str) -> AttributeValue | None:
        """The value of one attribute, ``None`` when the resource does not have it."""
        return dict(self.attributes).get(name)
