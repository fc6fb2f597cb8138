"""Reads the detailed debug log of rotel, which has a line for each field of every data point and span."""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from tests.real_parts.received import AttributeValue, ReceivedEvent, ReceivedLink, ReceivedPoint, ReceivedSpan

_ATTRIBUTE: Final = re.compile(r" +-> (?P<key>.*?): (?P<kind>Str|Int|Double|Bool|Slice)\((?P<value>.*)\)")
_ITEM: Final = re.compile(r"(?P<kind>Str|Int|Double|Bool)\((?P<value>[^)]*)\)")
_HEADING: Final = re.compile(
    r"(?P<what>ResourceMetrics|ResourceSpans|ScopeMetrics|ScopeSpans|Metric|Span|SpanEvent|SpanLink|\w+DataPoints) #\d+"
)
_SCOPE: Final = re.compile(r"InstrumentationScope (?P<scope>.*)")
_FIELD: Final = re.compile(r" *(?:-> )?(?P<key>[A-Z][A-Za-z ]*?)(?: #\d+(?:, Count)?)? *: (?P<value>.*)")
_TEMPORALITY: Final = {"AGGREGATION_TEMPORALITY_CUMULATIVE": "cumulative", "AGGREGATION_TEMPORALITY_DELTA": "delta"}
_PLAIN: Final[dict[str, Callable[[str], AttributeValue]]] = {
    "Str": str,
    "Int": int,
    "Double": float,
    "Bool": lambda text: text == "true",
}


class _Block:
    """One heading of the log, with its fields (a list for each name), attributes, and nested blocks."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.fields: dict[str, list[str]] = {}
        self.attributes: dict[str, AttributeValue] = {}

    def text(self, key: str, default: str = "") -> str:
        return self.fields.get(key, [default])[0]


def read_debug_log(text: str) -> tuple[list[ReceivedPoint], list[ReceivedSpan]]:
    """Return the data points and spans of a log, oldest first; an entry still being written may lack its last fields."""
    points: list[ReceivedPoint] = []
    spans: list[ReceivedSpan] = []
    above: dict[str, _Block] = {}
    parts: list[_Block] = []
    for block in _blocks(text):
        above[block.what] = block
        if block.what.endswith("DataPoints"):
            points.append(_point(block, above["Metric"], above["ResourceMetrics"], above["ScopeMetrics"]))
        elif block.what in ("Span", "SpanEvent", "SpanLink"):
            if block.what == "Span":
                parts = []
            else:
                parts.append(block)
                spans.pop()
            spans.append(_span(above["Span"], parts, above["ResourceSpans"], above["ScopeSpans"]))
    return points, spans


def _blocks(text: str) -> Iterator[_Block]:
    block = _Block("start")
    for line in text.splitlines():
        if (heading := _HEADING.fullmatch(line)) is not None:
            yield block
            block = _Block(heading["what"])
        elif (scope := _SCOPE.fullmatch(line)) is not None:
            block.fields["scope"] = [scope["scope"]]
        elif (attribute := _ATTRIBUTE.fullmatch(line)) is not None:
            block.attributes[attribute["key"]] = _value(attribute["kind"], attribute["value"])
        elif (one := _FIELD.fullmatch(line)) is not None:
            block.fields.setdefault(one["key"], []).append(one["value"])
    yield block


def _value(kind: str, text: str) -> AttributeValue:
    if kind == "Slice":
        return tuple(_PLAIN[item["kind"]](item["value"]) for item in _ITEM.finditer(text))
    return _PLAIN[kind](text)


def _number(text: str) -> float | int:
    return int(text) if re.fullmatch(r"-?\d+", text) else float(text)


def _point(point: _Block, metric: _Block, resource: _Block, scope: _Block) -> ReceivedPoint:
    kind = metric.text("DataType").lower()
    shape: dict[str, Any] = {}
    if kind == "histogram":
        shape = {
            "count": int(point.text("Count", "0")),
            "bounds": tuple(float(bound) for bound in point.fields.get("ExplicitBounds", ())),
            "buckets": tuple(int(count) for count in point.fields.get("Buckets", ())),
        }
        shape |= {key.lower(): float(point.text(key)) for key in ("Sum", "Min", "Max") if key in point.fields}
    elif "Value" in point.fields:
        shape["value"] = _number(point.text("Value"))
    return ReceivedPoint(
        name=metric.text("Name"),
        kind=kind,
        unit=metric.text("Unit"),
        description=metric.text("Description"),
        attributes=point.attributes,
        resource=resource.attributes,
        scope=scope.text("scope"),
        time_ns=int(point.text("Timestamp", "0")),
        start_time_ns=int(point.text("StartTimestamp", "0")),
        monotonic=metric.text("IsMonotonic") == "true" if kind == "sum" else None,
        temporality=_TEMPORALITY.get(metric.text("AggregationTemporality")),
        **shape,
    )


def _span(span: _Block, parts: list[_Block], resource: _Block, scope: _Block) -> ReceivedSpan:
    return ReceivedSpan(
        name=span.text("Name"),
        kind=span.text("Kind", "SPAN_KIND_UNSPECIFIED").removeprefix("SPAN_KIND_").lower(),
        trace_id=span.text("Trace ID"),
        span_id=span.text("ID"),
        parent_id=span.text("Parent ID"),
        tracestate=span.text("TraceState"),
        start_time_ns=int(span.text("Start time", "0")),
        end_time_ns=int(span.text("End time", "0")),
        status=span.text("Status code", "STATUS_CODE_UNSET").removeprefix("STATUS_CODE_").lower(),
        status_message=span.text("Status message"),
        attributes=span.attributes,
        resource=resource.attributes,
        scope=scope.text("scope"),
        events=tuple(
            ReceivedEvent(part.text("Name"), int(part.text("Timestamp", "0")), part.attributes)
            for part in parts
            if part.what == "SpanEvent"
        ),
        links=tuple(
            ReceivedLink(part.text("Trace ID"), part.text("ID"), part.text("TraceState"), part.attributes)
            for part in parts
            if part.what == "SpanLink"
        ),
    )
