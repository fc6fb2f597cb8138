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
    """One measurement of a series that was made inside a sampled span: it leads from a metric to a trace.

    Attributes:
        value: the value that was recorded, in the unit of the instrument.
        time_ns: when, in nanoseconds since the Unix epoch.
        trace_id: the trace of the span, 128 bits.
        span_id: the span, 64 bits.
    """

    value: int | float
    time_ns: int
    trace_id: int
    span_id: int


@final
class NumberPoint(msgspec.Struct, frozen=True, gc=False):
    """The value of one series of a counter or gauge.

    A counter's value is the total since ``start_time_ns``, when its series began; times are nanoseconds since the Unix epoch.

    Attributes:
        labels: names and values of the labels, in the order of ``label_names``.
        value: in the unit of the instrument. Of a counter: what was added since ``start_time_ns``. Not a finite number for a
            gauge that was set so.
        start_time_ns: when counting began: with the series, or, for differences, at the end of the interval before. In
            nanoseconds since the Unix epoch.
        time_ns: when the value was read, in nanoseconds since the Unix epoch.
        exemplars: measurements that were made inside sampled spans; mostly none.
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

    Attributes:
        labels: names and values of the labels, in the order of ``label_names``.
        count: how many values were recorded since ``start_time_ns``.
        sum: their sum, in the unit of the instrument.
        min: the smallest one; ``None`` without values, and for differences.
        max: the largest one; ``None`` without values, and for differences.
        buckets: how many values are in each bucket, one more than there are boundaries. Without boundaries: none, or one for
            all values.
        start_time_ns: as for a ``NumberPoint``, in nanoseconds since the Unix epoch.
        time_ns: when the values were read, in nanoseconds since the Unix epoch.
        exemplars: at most one for each bucket.
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
    """The fields that the data of every metric begin with.

    Attributes:
        name: lower case, digits, dots and underscores, such as ``orders.shipped``.
        unit: in UCUM, such as ``s``, ``By`` or ``{order}``; may be empty.
        description: one sentence for people; may be empty.
        label_names: the names of the labels, which every point has in this order.
    """

    name: str
    unit: str
    description: str
    label_names: tuple[str, ...]


@final
class CounterData(_Described, frozen=True, gc=False):
    """A monotonic counter: totals that only grow, or what was added to them.

    Attributes:
        points: one for each series, all or some of them: further ones come in the next chunk.
        scope: which part of the program records it.
        created: its place in the order in which the instruments of this process were created, from 1, also across kinds; 0
            when it is not known. An exporter whose names are less fine than ours uses it to give a name to the instrument that
            had it first.
        temporality: whether the points are totals or differences.
        observed: whether a callback gives the totals.
    """

    points: tuple[NumberPoint, ...]
    scope: Scope = EVENTCORE
    created: int = 0
    temporality: PointTemporality = "cumulative"
    observed: bool = False


@final
class GaugeData(_Described, frozen=True, gc=False):
    """A current value; ``additive`` is true for an up-down counter, whose series may be summed.

    Attributes:
        points: one for each series, all or some of them: further ones come in the next chunk.
        additive: whether it is an up-down counter.
        scope: which part of the program records it.
        created: as for a ``CounterData``.
    """

    points: tuple[NumberPoint, ...]
    additive: bool = False
    scope: Scope = EVENTCORE
    created: int = 0


@final
class HistogramData(_Described, frozen=True, gc=False):
    """A distribution over fixed ``boundaries`` (ascending upper bounds, inclusive; the last bucket has none).

    Attributes:
        boundaries: the upper bounds of the buckets but the last, in the unit of the instrument.
        points: one for each series, all or some of them: further ones come in the next chunk.
        scope: which part of the program records it.
        created: as for a ``CounterData``.
        temporality: whether the points are totals or differences.
    """

    boundaries: tuple[float, ...]
    points: tuple[HistogramPoint, ...]
    scope: Scope = EVENTCORE
    created: int = 0
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
    """Something that happened at one time within a span.

    Attributes:
        name: what happened.
        time_ns: when, in nanoseconds since the Unix epoch.
        attributes: names and values.
        dropped_attributes: how many further attributes were left out, because of a limit.
    """

    name: str
    time_ns: int
    attributes: Attributes = ()
    dropped_attributes: int = 0


@final
class SpanLink(msgspec.Struct, frozen=True, gc=False):
    """A span of this or another trace that caused this one without being its parent.

    Attributes:
        context: the identity of the span that is linked to.
        attributes: names and values.
        dropped_attributes: how many further attributes were left out, because of a limit.
    """

    context: TraceContext
    attributes: Attributes = ()
    dropped_attributes: int = 0


@final
class SpanData(msgspec.Struct, frozen=True, gc=False):
    """A finished span. ``parent_span_id`` is 0 for the root of a trace; times are nanoseconds since the Unix epoch.

    ``parent_is_remote`` says whether the parent is a span of another process. ``correlation_id`` and ``causation_id`` are the
    ones of event sourcing, ``None`` when the span has none.

    Attributes:
        name: what was done, such as ``execute TransferMoney``.
        kind: ``internal``, ``server``, ``client``, ``producer`` or ``consumer``.
        context: the identity of the span: trace id, span id, flags and ``tracestate``.
        parent_span_id: the span id of the parent, 64 bits; 0 for the root of a trace.
        start_time_ns: when it began, in nanoseconds since the Unix epoch.
        end_time_ns: when it ended, in nanoseconds since the Unix epoch.
        attributes: names and values; a value is a text, a number, a truth value, or a tuple of one of these types.
        events: what happened within the span, oldest first.
        links: spans that caused this one without being its parent.
        status: ``unset``, ``ok`` or ``error``.
        status_description: why it is an error; may be empty.
        correlation_id: of event sourcing; ``None`` for none.
        causation_id: of event sourcing; ``None`` for none.
        dropped_attributes: how many further attributes were left out, because of a limit.
        dropped_events: how many further events were left out.
        dropped_links: how many further links were left out.
        scope: which part of the program has made it.
        parent_is_remote: whether the parent is a span of another process.
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

    Attributes:
        attributes: names and values, in the order in which a backend may show them.

    >>> Resource((("service.name", "shop"),)).get("service.name")
    'shop'
    """

    attributes: Attributes

    def get(self, name: str) -> AttributeValue | None:
        """The value of one attribute, ``None`` when the resource does not have it."""
        return dict(self.attributes).get(name)
