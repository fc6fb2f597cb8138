"""Data that a receiver got over OTLP, as plain values to compare."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

AttributeValue: TypeAlias = str | int | float | bool | tuple[Any, ...]
Attributes: TypeAlias = Mapping[str, AttributeValue]


@dataclass(frozen=True)
class ReceivedExemplar:
    """An exemplar of a point; ids in hexadecimal."""

    value: float | int
    time_ns: int
    trace_id: str
    span_id: str


@dataclass(frozen=True)
class ReceivedPoint:
    """One data point with its metric and resource.

    Attributes:
        kind: ``"sum"``, ``"gauge"`` or ``"histogram"``.
        scope: name and version of the instrumentation scope, with a space between.
        monotonic: of a sum only.
        temporality: ``"cumulative"`` or ``"delta"``; None for a gauge.
        value: of a sum or gauge.
        buckets: the count of each bucket, one more than ``bounds``.
        schema_url: of the scope.
        exemplars: empty where the receiver does not show them.
    """

    name: str
    kind: str
    unit: str
    description: str
    attributes: Attributes
    resource: Attributes
    scope: str
    time_ns: int
    start_time_ns: int
    monotonic: bool | None = None
    temporality: str | None = None
    value: float | int | None = None
    count: int | None = None
    sum: float | None = None
    min: float | None = None
    max: float | None = None
    bounds: tuple[float, ...] = ()
    buckets: tuple[int, ...] = ()
    schema_url: str = ""
    exemplars: tuple[ReceivedExemplar, ...] = ()


@dataclass(frozen=True)
class ReceivedEvent:
    """An event of a span."""

    name: str
    time_ns: int
    attributes: Attributes


@dataclass(frozen=True)
class ReceivedLink:
    """A link of a span; ids in hexadecimal."""

    trace_id: str
    span_id: str
    tracestate: str
    attributes: Attributes


@dataclass(frozen=True)
class ReceivedSpan:
    """One span with its resource; ids in hexadecimal, ``parent_id`` is empty for a root.

    Attributes:
        kind: ``"internal"``, ``"server"``, ``"client"``, ``"producer"``, ``"consumer"`` or ``"unspecified"``.
        status: ``"unset"``, ``"ok"`` or ``"error"``.
    """

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    tracestate: str
    start_time_ns: int
    end_time_ns: int
    status: str
    status_message: str
    attributes: Attributes
    resource: Attributes
    scope: str
    events: tuple[ReceivedEvent, ...] = field(default=())
    links: tuple[ReceivedLink, ...] = field(default=())
    schema_url: str = ""
