"""Reads export requests in OTLP JSON, as ddapm-test-agent returns them: field names in snake case, 64-bit numbers as text."""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from tests.real_parts.received import AttributeValue, ReceivedEvent, ReceivedExemplar, ReceivedLink, ReceivedPoint, ReceivedSpan

_TEMPORALITY: Final = {"AGGREGATION_TEMPORALITY_CUMULATIVE": "cumulative", "AGGREGATION_TEMPORALITY_DELTA": "delta"}


def points_of(requests: Iterable[Mapping[str, Any]]) -> Iterator[ReceivedPoint]:
    """Every data point of metric export requests, in order."""
    for request in requests:
        for resource, scope, group in _scopes(request, "resource_metrics", "scope_metrics"):
            for metric in group.get("metrics", ()):
                yield from _points(metric, resource, scope, group.get("schema_url", ""))


def spans_of(requests: Iterable[Mapping[str, Any]]) -> Iterator[ReceivedSpan]:
    """Every span of trace export requests, in order."""
    for request in requests:
        for resource, scope, group in _scopes(request, "resource_spans", "scope_spans"):
            for span in group.get("spans", ()):
                yield _span(span, resource, scope, group.get("schema_url", ""))


def _scopes(request: Mapping[str, Any], outer: str, inner: str) -> Iterator[tuple[dict[str, AttributeValue], str, Any]]:
    for block in request.get(outer, ()):
        resource = _attributes(block.get("resource", {}).get("attributes", ()))
        for group in block.get(inner, ()):
            scope = group.get("scope", {})
            yield resource, f"{scope.get('name', '')} {scope.get('version', '')}", group


def _points(
    metric: Mapping[str, Any], resource: dict[str, AttributeValue], scope: str, schema_url: str
) -> Iterator[ReceivedPoint]:
    kind = next(kind for kind in ("sum", "gauge", "histogram") if kind in metric)
    data = metric[kind]
    for point in data.get("data_points", ()):
        yield ReceivedPoint(
            name=metric["name"],
            kind=kind,
            unit=metric.get("unit", ""),
            description=metric.get("description", ""),
            attributes=_attributes(point.get("attributes", ())),
            resource=resource,
            scope=scope,
            time_ns=int(point.get("time_unix_nano", 0)),
            start_time_ns=int(point.get("start_time_unix_nano", 0)),
            monotonic=data.get("is_monotonic", False) if kind == "sum" else None,
            temporality=_TEMPORALITY.get(data.get("aggregation_temporality", "")),
            value=int(point["as_int"]) if "as_int" in point else point.get("as_double"),
            count=int(point.get("count", 0)) if kind == "histogram" else None,
            sum=point.get("sum"),
            min=point.get("min"),
            max=point.get("max"),
            bounds=tuple(point.get("explicit_bounds", ())),
            buckets=tuple(int(count) for count in point.get("bucket_counts", ())),
            schema_url=schema_url,
            exemplars=tuple(map(_exemplar, point.get("exemplars", ()))),
        )


def _exemplar(exemplar: Mapping[str, Any]) -> ReceivedExemplar:
    return ReceivedExemplar(
        int(exemplar["as_int"]) if "as_int" in exemplar else exemplar["as_double"],
        int(exemplar.get("time_unix_nano", 0)),
        _hex(exemplar.get("trace_id", "")),
        _hex(exemplar.get("span_id", "")),
    )


def _span(span: Mapping[str, Any], resource: dict[str, AttributeValue], scope: str, schema_url: str) -> ReceivedSpan:
    status = span.get("status", {})
    return ReceivedSpan(
        name=span.get("name", ""),
        kind=span.get("kind", "SPAN_KIND_UNSPECIFIED").removeprefix("SPAN_KIND_").lower(),
        trace_id=_hex(span.get("trace_id", "")),
        span_id=_hex(span.get("span_id", "")),
        parent_id=_hex(span.get("parent_span_id", "")),
        tracestate=span.get("trace_state", ""),
        start_time_ns=int(span.get("start_time_unix_nano", 0)),
        end_time_ns=int(span.get("end_time_unix_nano", 0)),
        status=status.get("code", "STATUS_CODE_UNSET").removeprefix("STATUS_CODE_").lower(),
        status_message=status.get("message", ""),
        attributes=_attributes(span.get("attributes", ())),
        resource=resource,
        scope=scope,
        events=tuple(
            ReceivedEvent(event.get("name", ""), int(event.get("time_unix_nano", 0)), _attributes(event.get("attributes", ())))
            for event in span.get("events", ())
        ),
        links=tuple(
            ReceivedLink(
                _hex(link.get("trace_id", "")),
                _hex(link.get("span_id", "")),
                link.get("trace_state", ""),
                _attributes(link.get("attributes", ())),
            )
            for link in span.get("links", ())
        ),
        schema_url=schema_url,
    )


def _hex(base64_text: str) -> str:
    return base64.b64decode(base64_text).hex()


def _attributes(pairs: Sequence[Mapping[str, Any]]) -> dict[str, AttributeValue]:
    return {pair["key"]: _value(pair.get("value", {})) for pair in pairs}


def _value(value: Mapping[str, Any]) -> AttributeValue:
    if "int_value" in value:
        return int(value["int_value"])
    if "array_value" in value:
        return tuple(_value(item) for item in value["array_value"].get("values", ()))
    for kind in ("string_value", "double_value", "bool_value"):
        if kind in value:
            plain: str | float | bool = value[kind]
            return plain
    return ""
