"""Faults with spans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eventcore.exporting import Rejected, Secret, Signal, SpanData, hookimpl
from tests.testing.exporters.line_exporter import LineExporter
from tests.testing.exporters.planted.table import planted


@planted("test_a_span_arrives_with_every_field")
class MakesEverySpanARoot(LineExporter):
    def span(self, span: Any) -> dict[str, Any]:
        return super().span(span) | {"parent_id": ""}


@planted("test_a_span_arrives_with_every_field")
class LosesLinks(LineExporter):
    def span(self, span: Any) -> dict[str, Any]:
        return super().span(span) | {"links": []}


@planted("test_a_span_that_has_only_a_name_and_ids_arrives")
class WritesIdsWithoutZeros(LineExporter):
    def span(self, span: Any) -> dict[str, Any]:
        return super().span(span) | {"span_id": f"{span.context.span_id:x}"}


@planted("test_every_kind_and_status_of_a_span_arrives")
class KnowsNoConsumers(LineExporter):
    def span(self, span: Any) -> dict[str, Any]:
        return super().span(span) | ({"kind": "internal"} if span.kind == "consumer" else {})


@planted("test_every_kind_and_status_of_a_span_arrives")
class TakesOkForUnset(LineExporter):
    def span(self, span: Any) -> dict[str, Any]:
        return super().span(span) | ({"status": "unset"} if span.status == "ok" else {})


@planted("test_several_events_and_links_arrive_in_their_order")
class KeepsTheLastEvent(LineExporter):
    def span(self, span: Any) -> dict[str, Any]:
        fields = super().span(span)
        return fields | {"events": fields["events"][-1:]}


@planted("test_attributes_of_every_type_arrive")
class WritesBooleansAsText(LineExporter):
    def span(self, span: Any) -> dict[str, Any]:
        fields = super().span(span)
        texts = {name: str(value) for name, value in fields["attributes"].items() if isinstance(value, bool)}
        return fields | {"attributes": fields["attributes"] | texts}


@planted("test_a_value_that_no_protocol_takes_loses_no_other_span")
class LosesTheBatchOfABadValue(LineExporter):
    @hookimpl
    def flush(self, signal: Signal, timeout: float) -> Any:
        if any(len(str(span["attributes"].get("huge", ""))) > 20 for span in self.waiting["spans"]):
            count, self.waiting["spans"] = len(self.waiting["spans"]), []
            return Rejected(count, "a value cannot be encoded")
        return super().flush(signal, timeout)


@planted("test_thousands_of_spans_arrive_each_once")
class CountsWhatArrivedAsRejected(LineExporter):
    @hookimpl
    def flush(self, signal: Signal, timeout: float) -> Any:
        count = len(self.waiting[signal])
        super().flush(signal, timeout)
        return Rejected(max(count - 1000, 0), "too many")


@planted("test_spans_of_several_cycles_arrive_each_once")
class SendsSpansAgain(LineExporter):
    def __init__(self, port: int, token: Secret) -> None:
        super().__init__(port, token)
        self.last: list[Any] = []

    def send(self, content: Mapping[str, Any], timeout: float) -> Any:
        if spans := content.get("spans"):
            content, self.last = {"spans": [*self.last, *spans]}, spans
        super().send(content, timeout)


@planted("test_spans_of_several_scopes_arrive_each_with_its_own")
class TakesTheFirstScopeForAll(LineExporter):
    @hookimpl
    def flush(self, signal: Signal, timeout: float) -> Any:
        if signal == "spans":
            self.waiting[signal] = [span | {"scope": self.waiting[signal][0]["scope"]} for span in self.waiting[signal]]
        super().flush(signal, timeout)


@planted("test_children_arrive_with_their_parents_in_any_order")
class SendsRootsOfTheBatch(LineExporter):
    @hookimpl
    def export_spans(self, spans: Sequence[Any], timeout: float) -> None:
        known = {span.context.span_id for span in spans}
        super().export_spans([span for span in spans if span.parent_span_id not in known], timeout)


@planted("test_a_span_arrives_with_every_field")
class LosesTheTracestate(LineExporter):
    def span(self, span: SpanData) -> dict[str, Any]:
        return super().span(span) | {"tracestate": ""}
