"""The contract of exporters: every span arrives, with every field that the backend keeps."""

from __future__ import annotations

import time

from eventcore.exporting import SpanData, SpanEvent, SpanLink, TraceContext
from eventcore.testing.exporters.contract.fixtures import ContractFixtures, StartTrial, Trial
from eventcore.testing.exporters.samples import SCOPES, sample_counter, sample_span, sample_spans
from eventcore.testing.exporters.setup import ExporterSetup

_HUGE = 2000


class SpanContract(ContractFixtures):
    """Tests of spans."""

    def test_a_span_arrives_with_every_field(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "spans")
        self._arrives(trial(), sample_span("ship order"))

    def test_a_span_that_has_only_a_name_and_ids_arrives(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "spans")
        now = time.time_ns()
        self._arrives(trial(), SpanData("root", "internal", TraceContext(1 << 127, 1, 1), 0, now, now))

    def test_children_arrive_with_their_parents_in_any_order(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "spans")
        parent = sample_span("parent", parent_span_id=0)
        child = sample_span("child", context=_of(parent, 1), parent_span_id=parent.context.span_id)
        grandchild = sample_span("grandchild", context=_of(parent, 2), parent_span_id=child.context.span_id)
        # Its parent ends later, or belongs to another process.
        stranger = sample_span("stranger", context=_of(parent, 3), parent_span_id=77)
        self._arrives(trial(), grandchild, child, stranger, parent)

    def test_every_kind_and_status_of_a_span_arrives(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "spans")
        tested = trial()
        kinds = [sample_span(f"kind {kind}", kind=kind) for kind in ("internal", "server", "client", "producer", "consumer")]
        statuses = [
            sample_span(f"status {status}", status=status, status_description="why" if status == "error" else "")
            for status in ("unset", "ok", "error")
        ]
        self._arrives(tested, *kinds, *statuses)

    def test_several_events_and_links_arrive_in_their_order(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "spans")
        now = time.time_ns()
        events = tuple(SpanEvent(f"event {number}", now - 10 + number, (("n", number),)) for number in range(3))
        links = tuple(SpanLink(TraceContext(7, number, 1), (("n", number),)) for number in range(1, 4))
        self._arrives(trial(), sample_span("eventful", events=events, links=links))

    def test_attributes_of_every_type_arrive(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "spans")
        attributes = (
            ("text", 'Grüße\n"x"'),
            ("empty", ""),
            ("yes", True),
            ("no", False),
            ("whole", 2**40),
            ("negative", -3),
            ("broken", 0.1),
            ("texts", ("a", "")),
            ("numbers", (1, 2)),
            ("ratios", (0.5, 1.5)),
            ("flags", (True, False)),
        )
        self._arrives(trial(), sample_span("typed", attributes=attributes))

    def test_a_value_that_no_protocol_takes_loses_no_other_span(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "spans")
        tested = trial()
        good = sample_spans(5)
        odd = sample_span("odd", attributes=(("huge", 10**30), ("surrogate", "\ud800"), ("zero", "a\x00b")))
        tested.end_spans([*good[:2], odd, *good[2:]])
        tested.flush()
        tested.expect_spans(good)
        tested.check_account(tested.flush())

    def test_thousands_of_spans_arrive_each_once(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "spans")
        tested = trial()
        spans = sample_spans(_HUGE)
        tested.end_spans(spans)
        tested.deliver()
        tested.expect_spans(spans)
        report = tested.shutdown()
        assert report.spans_exported == _HUGE, f"each span that arrived must count as exported: {report}"
        tested.check_account(report)

    def test_spans_of_several_cycles_arrive_each_once(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "spans")
        tested = trial()
        for cycle in range(4):
            tested.end_spans(sample_spans(3, f"cycle {cycle} span"))
            tested.record(sample_counter(values={("FR",): cycle + 1}))
            tested.deliver()
        tested.expect_spans(tested.delivery.offered)
        tested.check_account(tested.shutdown())

    def test_spans_of_several_scopes_arrive_each_with_its_own(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "spans", "scopes")
        spans = [sample_span(f"span of {number}", scope=SCOPES[number % 3]) for number in range(9)]
        self._arrives(trial(), *spans)

    @staticmethod
    def _arrives(tested: Trial, *spans: SpanData) -> None:
        tested.end_spans(spans)
        tested.deliver()
        tested.expect_spans(spans)
        problems = [f"{span.name}: {problem}" for span in spans for problem in tested.span_differences(span)]
        assert not problems, "the backend must have the span as it was recorded:\n  " + "\n  ".join(problems)


def _of(span: SpanData, number: int) -> TraceContext:
    """The identity of another span of the same trace."""
    return TraceContext(span.context.trace_id, span.context.span_id ^ number, 1)
