"""Spans and metrics as plain values, which MessagePack can hold, and back.

A span is packed from the fields that were recorded, not from its frozen value: most of the work, which
is to check and to freeze them, is done by the other process. It holds the GIL there and not here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import msgspec

from eventcore.exporting.process.packed_spans import pack_frozen, pack_span
from eventcore.recording.spans import Span
from eventcore.recording.values import (
    EVENTCORE,
    CounterData,
    Exemplar,
    GaugeData,
    HistogramData,
    HistogramPoint,
    MetricData,
    NumberPoint,
    Scope,
)

Packed: TypeAlias = list[Any] | tuple[Any, ...]
# The integers of MessagePack. A larger one, which a gauge or the extremes of a histogram may have, is a text in an extension.
_INTEGERS: Final = range(-(2**63), 2**64)
_LARGE: Final = 1
_SEQUENCES: Final = (list, tuple)


def pack_spans(spans: Sequence[Span]) -> bytes:
    """Ended spans as one text of MessagePack.

    Raises:
        UnicodeEncodeError: the name of a scope cannot be written as UTF-8.
    """
    try:
        return msgspec.msgpack.encode([pack_span(span) for span in spans])
    except Exception:  # noqa: BLE001  # an application may have set anything: then the frozen values are packed
        return msgspec.msgpack.encode([pack_frozen(span.data()) for span in spans])


def pack_metrics(metrics: Sequence[MetricData]) -> bytes:
    """Counters, gauges or histograms as one text of MessagePack.

    Raises:
        Exception: a value cannot be packed, such as a text with a lone surrogate.
    """
    packed = [_pack_metric(data) for data in metrics]
    try:
        return msgspec.msgpack.encode(packed)
    except OverflowError:
        return msgspec.msgpack.encode(_with_large_integers(packed))


def unpack_metrics(kind: str, packed: bytes) -> list[Any]:
    """The values again; ``kind`` is ``counters``, ``gauges`` or ``histograms``."""
    unpack = _UNPACKING[kind]
    return [unpack(*fields) for fields in msgspec.msgpack.decode(packed, ext_hook=_unpack_large)]


def _with_large_integers(value: Any) -> Any:
    """The same fields, which MessagePack can hold whatever the size of their integers."""
    if type(value) in _SEQUENCES:
        return [_with_large_integers(each) for each in value]
    if isinstance(value, int) and value not in _INTEGERS:
        return msgspec.msgpack.Ext(_LARGE, hex(value).encode())
    return value


def _unpack_large(_: int, data: memoryview) -> int:
    return int(bytes(data), 16)


def _pack_metric(data: MetricData) -> Packed:
    scope = None if data.scope is EVENTCORE else msgspec.structs.astuple(data.scope)
    head = data.name, data.unit, data.description, data.label_names, scope, data.created
    if isinstance(data, HistogramData):
        points: list[Packed] = [
            (*msgspec.structs.astuple(point)[:-1], _pack_exemplars(point.exemplars)) for point in data.points
        ]
        return *head, points, data.temporality, data.boundaries
    points = [
        (point.labels, point.value, point.start_time_ns, point.time_ns, _pack_exemplars(point.exemplars))
        for point in data.points
    ]
    if isinstance(data, CounterData):
        return *head, points, data.temporality, data.observed
    return *head, points, data.additive


def _pack_exemplars(exemplars: Sequence[Exemplar]) -> Packed:
    if not exemplars:
        return ()
    # MessagePack has no integers of 128 bits.
    return [(each.value, each.time_ns, each.trace_id.to_bytes(16, "big"), each.span_id) for each in exemplars]


def _unpack_counter(*fields: Any) -> CounterData:
    name, unit, description, label_names, scope, created, points, temporality, observed = fields
    numbers = tuple(_unpack_number(*point) for point in points)
    labels = tuple(label_names)
    return CounterData(name, unit, description, labels, numbers, _unpack_scope(scope), created, temporality, observed)


def _unpack_gauge(*fields: Any) -> GaugeData:
    name, unit, description, label_names, scope, created, points, additive = fields
    numbers = tuple(_unpack_number(*point) for point in points)
    return GaugeData(name, unit, description, tuple(label_names), numbers, additive, _unpack_scope(scope), created)


def _unpack_histogram(*fields: Any) -> HistogramData:
    name, unit, description, label_names, scope, created, packed, temporality, boundaries = fields
    points = tuple(
        HistogramPoint(
            _unpack_labels(labels), count, total, least, most, tuple(buckets), start, time_ns, _unpack_exemplars(exemplars)
        )
        for labels, count, total, least, most, buckets, start, time_ns, exemplars in packed
    )
    scope = _unpack_scope(scope)
    return HistogramData(name, unit, description, tuple(label_names), tuple(boundaries), points, scope, created, temporality)


_UNPACKING: Final[Mapping[str, Callable[..., Any]]] = MappingProxyType(
    {"counters": _unpack_counter, "gauges": _unpack_gauge, "histograms": _unpack_histogram}
)


def _unpack_number(labels: Any, value: Any, start: int, time_ns: int, exemplars: Any) -> NumberPoint:
    return NumberPoint(_unpack_labels(labels), value, start, time_ns, _unpack_exemplars(exemplars))


def _unpack_labels(labels: Any) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in labels)


def _unpack_exemplars(exemplars: Any) -> tuple[Exemplar, ...]:
    return tuple(Exemplar(value, at, int.from_bytes(trace, "big"), span) for value, at, trace, span in exemplars)


def _unpack_scope(scope: Any) -> Scope:
    return EVENTCORE if scope is None else Scope(*scope)
