"""Encodes core's values as OTLP, one chunk at a time.

The bytes of each span and each point are put together here, without objects of protobuf in between: attributes, names and
labels that come again and again are encoded once and kept. ``benchmarks/otlp_encoding.py`` compares it with protobuf's own
objects and with the SDK's encoder, and ``tests/otel/test_otel_encoding.py`` parses the result with protobuf. Field numbers are
those of https://github.com/open-telemetry/opentelemetry-proto; the tag of a field is its number and its wire type.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from math import isfinite
from struct import Struct
from typing import Any, Final, NamedTuple, TypeAlias

from eventcore.exporting import (
    Attributes,
    AttributeValue,
    CounterData,
    Exemplar,
    GaugeData,
    HistogramData,
    HistogramPoint,
    Labels,
    MetricData,
    NumberPoint,
    Scope,
    SpanData,
    SpanEvent,
    SpanKind,
    SpanLink,
)
from eventcore_otel.protobuf import (
    VARINTS,
    count_field,
    delimited,
    key_field,
    key_value,
    text,
    text_field,
    timestamp,
    varint,
    with_text,
    with_value,
)

Encoded: TypeAlias = "list[tuple[Group, list[bytes]]]"

_KINDS: Final[dict[SpanKind, bytes]] = {
    "internal": b"\x30\x01",
    "server": b"\x30\x02",
    "client": b"\x30\x03",
    "producer": b"\x30\x04",
    "consumer": b"\x30\x05",
}
_STATUS: Final = {"ok": b"\x18\x01", "error": b"\x18\x02"}
# Trace id, span id, start, end, flags.
_SPAN: Final = Struct("<2s16s2s8scQcQ2sI")
_LINK: Final = Struct("<2s16s2s8scI")
# The same with the tag and the length of the link before it: all that a link without attributes has.
_PLAIN_LINK: Final = Struct("<4s16s2s8scI")
_PLAIN_LINK_BEGINS: Final = bytes((0x6A, _LINK.size, 0x0A, 0x10))
_PARENT: Final = Struct(">2sQ")
_INT_POINT: Final = Struct("<cQcQcq")
_DOUBLE_POINT: Final = Struct("<cQcQcd")
_HISTOGRAM_POINT: Final = Struct("<cQcQcQ")
_DOUBLE: Final = Struct("<cd")
_FLOAT: Final = Struct("<d")
_EXEMPLAR: Final = Struct("<cQ2s8s2s16s")

# The context of a link, or of a span's parent, is one of this or of another process: bits 8 and 9 of the flags.
_LOCAL: Final = 0x100
_REMOTE: Final = 0x300

_GAUGE: Final = b"\x2a"
_SUM: Final = b"\x3a"
_HISTOGRAM: Final = b"\x4a"
_TEMPORALITY: Final = {"delta": b"\x10\x01", "cumulative": b"\x10\x02"}
_MONOTONIC: Final = b"\x18\x01"
_INT64: Final = range(-(2**63), 2**63)

_CORRELATION_ID: Final = "eventcore.correlation_id"
_CAUSATION_ID: Final = "eventcore.causation_id"

DUPLICATE: Final = "left out: another point of the instrument has the same attributes"
OVERFLOWN: Final = "left out: a sum is not finite or has more than 64 bits"

# What the caches hold at most. The value of an attribute that is another one each time, such as a stream id, is not worth
# keeping: of each name, only the first values are kept.
_MOST_ATTRIBUTES: Final = 4096
_MOST_VALUES: Final = 256
_MOST_LABELS: Final = 20_000
_LONGEST_TEXT: Final = 128


class Group(NamedTuple):
    """Where encoded items belong in a request: spans to a scope, points to an instrument in a scope.

    Attributes:
        scope: the instrumentation scope.
        metric: name, description and unit of the instrument, encoded; empty for spans.
        kind: the tag of the kind of metric.
        properties: temporality and whether a sum is monotonic, encoded.
    """

    scope: Scope
    metric: bytes = b""
    kind: bytes = b""
    properties: bytes = b""

    def enclose(self, items: bytes) -> bytes:
        """The fields of a ``ScopeSpans`` or ``ScopeMetrics`` message that hold ``items``."""
        if not self.metric:
            return items
        return delimited(b"\x12", self.metric + delimited(self.kind, items + self.properties))


class Encoder:
    """Encodes spans and points. It holds no lock: one thread uses it.

    Each method returns the encoded items of a chunk in order, with where each run of them belongs in
    a request.

    Args:
        exemplars: whether the exemplars of points are encoded.

    Attributes:
        left_out: how many points of this cycle are not encoded, by reason.
        without_sum: names of the histograms whose sum is not finite; it is not encoded.
    """

    def __init__(self, *, exemplars: bool = True) -> None:
        self._exemplars = exemplars
        self.left_out: Counter[str] = Counter()
        self.without_sum: set[str] = set()
        # The attributes of the points of this cycle, by instrument: no two may be equal.
        self._seen: dict[Group, set[bytes]] = {}
        # By the type of the value, because True, 1 and 1.0 are equal. Floats are not kept: neither are 0.0 and -0.0 apart.
        self._attributes: dict[type, dict[tuple[str, AttributeValue], bytes]] = {str: {}, int: {}, bool: {}}
        self._kept: Counter[str] = Counter()
        self._kept_in_all = 0
        self._names: dict[str, bytes] = {}
        self._keys: dict[str, bytes] = {}
        self._floats: dict[str, bytes] = {}
        self._number_labels: dict[Labels, bytes] = {}
        self._histogram_labels: dict[Labels, bytes] = {}
        self._bucket_structs: dict[int, Struct] = {}

    def begin_metrics(self) -> None:
        """A cycle of metrics begins: forget which points the last one had."""
        self._seen.clear()
        self.left_out.clear()
        self.without_sum.clear()

    def spans(self, spans: Sequence[SpanData]) -> Encoded:
        """Encode spans: ``ScopeSpans.spans``."""
        groups: Encoded = []
        scope: Scope | None = None
        items: list[bytes] = []
        for span in spans:
            if span.scope is not scope:
                scope, items = span.scope, []
                groups.append((Group(scope), items))
            items.append(self._span(span))
        return groups

    def counters(self, counters: Sequence[CounterData]) -> Encoded:
        """Encode counters: monotonic sums, each with the temporality of its data."""
        return [self._numbers(data, _SUM, _TEMPORALITY[data.temporality] + _MONOTONIC) for data in counters]

    def gauges(self, gauges: Sequence[GaugeData]) -> Encoded:
        """Encode gauges: additive ones as cumulative sums that may fall, others as gauges."""
        return [
            self._numbers(data, _SUM, _TEMPORALITY["cumulative"]) if data.additive else self._numbers(data, _GAUGE, b"")
            for data in gauges
        ]

    def histograms(self, histograms: Sequence[HistogramData]) -> Encoded:
        """Encode histograms with explicit bounds, each with the temporality of its data."""
        groups: Encoded = []
        for data in histograms:
            group = _group(data, _HISTOGRAM, _TEMPORALITY[data.temporality])
            bounds = delimited(b"\x3a", self._buckets(len(data.boundaries), "d").pack(*data.boundaries))
            seen = self._seen.setdefault(group, set())
            items: list[bytes] = []
            for point in data.points:
                labels = self._labels(self._histogram_labels, b"\x4a", point.labels)
                if labels in seen:
                    self.left_out[DUPLICATE] += 1
                else:
                    seen.add(labels)
                    items.append(self._histogram_point(data.name, point, labels, bounds))
            groups.append((group, items))
        return groups

    def _span(self, span: SpanData) -> bytes:
        context = span.context
        trace_id, span_id = context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big")
        flags = context.trace_flags | (_REMOTE if span.parent_is_remote else _LOCAL)
        start, end = span.start_time_ns, span.end_time_ns
        try:
            fixed = _SPAN.pack(b"\x0a\x10", trace_id, b"\x12\x08", span_id, b"\x39", start, b"\x41", end, b"\x85\x01", flags)
        except struct.error:
            start, end = timestamp(start), timestamp(end)
            fixed = _SPAN.pack(b"\x0a\x10", trace_id, b"\x12\x08", span_id, b"\x39", start, b"\x41", end, b"\x85\x01", flags)
        fields = [fixed, self._names.get(span.name) or self._name(span.name), _KINDS[span.kind]]
        if span.parent_span_id:
            fields.append(_PARENT.pack(b"\x22\x08", span.parent_span_id))
        attributes, floats = self._attributes, self._floats
        for attribute in span.attributes:
            value = attribute[1]
            kind = type(value)
            if kind is float:
                fields.append((floats.get(attribute[0]) or self._float(attribute[0])) + _FLOAT.pack(value))
                continue
            known = attributes.get(kind)
            fields.append((known is not None and known.get(attribute)) or self._attribute(attribute))
        if span.correlation_id is not None or span.causation_id is not None:
            self._add_ids(fields, span)
        if context.tracestate:
            fields.append(text_field(b"\x1a", context.tracestate))
        if span.events:
            fields += [self._event(event) for event in span.events]
        if span.links:
            fields += [self._link(link) for link in span.links]
        if span.status != "unset":
            fields.append(delimited(b"\x7a", text_field(b"\x12", span.status_description) + _STATUS[span.status]))
        if span.dropped_attributes or span.dropped_events or span.dropped_links:
            fields += [
                count_field(b"\x50", span.dropped_attributes),
                count_field(b"\x60", span.dropped_events),
                count_field(b"\x70", span.dropped_links),
            ]
        body = b"".join(fields)
        size = len(body)
        return b"".join((b"\x12", VARINTS[size] if size < 4096 else varint(size), body))

    def _name(self, name: str) -> bytes:
        return _keep(self._names, name, delimited(b"\x2a", text(name)))

    def _key(self, name: str) -> bytes:
        """The name of an attribute."""
        return _keep(self._keys, name, key_field(name))

    def _float(self, name: str) -> bytes:
        """An attribute with a float, but for the float itself: these are seldom the same twice."""
        encoded = with_value(b"\x4a", self._keys.get(name) or self._key(name), 0.0)[: -_FLOAT.size]
        return _keep(self._floats, name, encoded)

    def _attribute(self, attribute: tuple[str, AttributeValue]) -> bytes:
        """An attribute of a span, which is kept if it may come again."""
        name, value = attribute
        key = self._keys.get(name) or self._key(name)
        encoded = with_text(b"\x4a", key, value) if type(value) is str else with_value(b"\x4a", key, value)
        known = self._attributes.get(type(value))
        if known is None or len(encoded) > 2 * _LONGEST_TEXT or self._kept[name] >= _MOST_VALUES:
            return encoded
        if self._kept_in_all >= _MOST_ATTRIBUTES:
            self._kept_in_all = 0
            self._kept.clear()
            for each in self._attributes.values():
                each.clear()
        known[attribute] = encoded
        self._kept[name] += 1
        self._kept_in_all += 1
        return encoded

    def _attributes_with_tag(self, tag: bytes, attributes: Attributes) -> bytes:
        """Attributes of an event or a link."""
        fields: list[bytes] = []
        for attribute in attributes:
            known = self._attributes.get(type(attribute[1]))
            # What is kept begins with the tag that an attribute has in a span.
            encoded = (known is not None and known.get(attribute)) or self._attribute(attribute)
            fields += (tag, encoded[1:])
        return b"".join(fields)

    def _add_ids(self, fields: list[bytes], span: SpanData) -> None:
        names = [name for name, _ in span.attributes]
        for name, value in ((_CORRELATION_ID, span.correlation_id), (_CAUSATION_ID, span.causation_id)):
            if value is not None and name not in names:
                fields.append(with_text(b"\x4a", self._keys.get(name) or self._key(name), value))

    def _event(self, event: SpanEvent) -> bytes:
        fields = (
            b"\x09" + timestamp(event.time_ns).to_bytes(8, "little"),
            text_field(b"\x12", event.name),
            self._attributes_with_tag(b"\x1a", event.attributes),
            count_field(b"\x20", event.dropped_attributes),
        )
        return delimited(b"\x5a", b"".join(fields))

    def _link(self, link: SpanLink) -> bytes:
        context = link.context
        flags = context.trace_flags | (_REMOTE if context.is_remote else _LOCAL)
        ids = context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big")
        if not (link.attributes or link.dropped_attributes or context.tracestate):
            return _PLAIN_LINK.pack(_PLAIN_LINK_BEGINS, ids[0], b"\x12\x08", ids[1], b"\x35", flags)
        fields = (
            _LINK.pack(b"\x0a\x10", ids[0], b"\x12\x08", ids[1], b"\x35", flags),
            text_field(b"\x1a", context.tracestate),
            self._attributes_with_tag(b"\x22", link.attributes),
            count_field(b"\x28", link.dropped_attributes),
        )
        return delimited(b"\x6a", b"".join(fields))

    def _numbers(self, data: CounterData | GaugeData, kind: bytes, properties: bytes) -> tuple[Group, list[bytes]]:
        group = _group(data, kind, properties)
        seen = self._seen.setdefault(group, set())
        is_sum = kind == _SUM
        items: list[bytes] = []
        for point in data.points:
            labels = self._labels(self._number_labels, b"\x3a", point.labels)
            if labels in seen:
                self.left_out[DUPLICATE] += 1
                continue
            if (number := _number(point, is_sum=is_sum)) is None:
                self.left_out[OVERFLOWN] += 1
                continue
            seen.add(labels)
            body = labels + number
            if point.exemplars and self._exemplars:
                body += _exemplars(b"\x2a", point.exemplars)
            size = len(body)
            items.append(b"".join((b"\x0a", VARINTS[size] if size < 4096 else varint(size), body)))
        return group, items

    def _histogram_point(self, name: str, point: HistogramPoint, labels: bytes, bounds: bytes) -> bytes:
        buckets = self._buckets(len(point.buckets), "Q").pack(*point.buckets)
        start, time = point.start_time_ns, point.time_ns
        try:
            fixed = _HISTOGRAM_POINT.pack(b"\x11", start, b"\x19", time, b"\x21", point.count)
        except struct.error:
            fixed = _HISTOGRAM_POINT.pack(b"\x11", timestamp(start), b"\x19", timestamp(time), b"\x21", point.count)
        fields = [labels, fixed, b"\x32", varint(len(buckets)), buckets, bounds]
        if isfinite(point.sum):
            fields.append(_DOUBLE.pack(b"\x29", point.sum))
        else:
            self.without_sum.add(name)
        if point.min is not None:
            fields.append(_DOUBLE.pack(b"\x59", point.min))
        if point.max is not None:
            fields.append(_DOUBLE.pack(b"\x61", point.max))
        if point.exemplars and self._exemplars:
            fields.append(_exemplars(b"\x42", point.exemplars))
        return delimited(b"\x0a", b"".join(fields))

    def _labels(self, known: dict[Labels, bytes], tag: bytes, labels: Labels) -> bytes:
        encoded = known.get(labels)
        if encoded is None:
            encoded = b"".join([key_value(tag, name, value) for name, value in labels])
            if len(known) >= _MOST_LABELS:
                known.clear()
            known[labels] = encoded
        return encoded

    def _buckets(self, number: int, kind: str) -> Struct:
        key = number if kind == "Q" else -number - 1
        if (found := self._bucket_structs.get(key)) is None:
            if len(self._bucket_structs) >= _MOST_VALUES:
                self._bucket_structs.clear()
            found = self._bucket_structs[key] = Struct(f"<{number}{kind}")
        return found


def _keep(kept: dict[str, bytes], name: str, encoded: bytes) -> bytes:
    """Keep what a name is encoded as, unless it is long; return it."""
    if len(name) <= _LONGEST_TEXT:
        if len(kept) >= _MOST_ATTRIBUTES:
            kept.clear()
        kept[name] = encoded
    return encoded


def encode_resource(attributes: Attributes, schema_url: str = "") -> bytes:
    """The fields ``resource`` and ``schema_url`` of a ``ResourceSpans`` or ``ResourceMetrics`` message."""
    resource = b"".join([key_value(b"\x0a", name, value) for name, value in attributes])
    return delimited(b"\x0a", resource) + text_field(b"\x1a", schema_url)


def _group(data: MetricData, kind: bytes, properties: bytes) -> Group:
    described = delimited(b"\x0a", text(data.name)) + text_field(b"\x12", data.description) + text_field(b"\x1a", data.unit)
    return Group(data.scope, described, kind, properties)


def _number(point: NumberPoint, *, is_sum: bool) -> bytes | None:
    """Times and value of a point; ``None`` when OTLP has no number for the value."""
    value: Any = point.value
    time = timestamp(point.time_ns)
    start = timestamp(point.start_time_ns) if is_sum else 0
    if isinstance(value, int):
        if value in _INT64:
            return _INT_POINT.pack(b"\x11", start, b"\x19", time, b"\x31", value)
        if is_sum:
            return None
        try:
            value = float(value)
        except OverflowError:
            return None
    if is_sum and not isfinite(value):
        return None
    return _DOUBLE_POINT.pack(b"\x11", start, b"\x19", time, b"\x21", value)


def _exemplars(tag: bytes, exemplars: Sequence[Exemplar]) -> bytes:
    fields: list[bytes] = []
    for exemplar in exemplars:
        ids = exemplar.span_id.to_bytes(8, "big"), exemplar.trace_id.to_bytes(16, "big")
        fixed = _EXEMPLAR.pack(b"\x11", timestamp(exemplar.time_ns), b"\x22\x08", ids[0], b"\x2a\x10", ids[1])
        value = exemplar.value
        if isinstance(value, int) and value in _INT64:
            number = b"\x31" + value.to_bytes(8, "little", signed=True)
        else:
            number = _DOUBLE.pack(b"\x19", value)
        fields.append(delimited(tag, fixed + number))
    return b"".join(fields)
