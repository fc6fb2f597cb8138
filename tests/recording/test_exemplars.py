"""Exemplars: the newest value of a sampled span, for series that ask for them."""

from __future__ import annotations

import time

from eventcore.recording import (
    InstrumentRegistry,
    TraceContext,
    Tracer,
)
from tests.recording.instruments import collect


def test_series_that_ask_for_exemplars_keep_the_newest_value_of_a_sampled_span(
    registry: InstrumentRegistry, tracer: Tracer
) -> None:
    total = registry.counter("c", exemplars=True).labels()
    wait = registry.histogram("h", boundaries=(1.0, 10.0), exemplars=True).labels()
    total.add(1)
    with tracer.span("one") as one:
        total.add(2)
        wait.record(0.5)
        wait.record(5)
    with tracer.span("two") as two:
        wait.record(7)
    with tracer.span("unsampled", parent=TraceContext(1, 2, 0)):
        total.add(3)
        wait.record(0.7)
    collection = collect(registry)
    (exemplar,) = collection.counters[0].points[0].exemplars
    assert (exemplar.value, exemplar.trace_id, exemplar.span_id) == (2, one.trace_id, one.span_id)
    assert abs(exemplar.time_ns - time.time_ns()) < 60 * 10**9
    first, second = collection.histograms[0].points[0].exemplars
    assert (first.value, first.trace_id) == (0.5, one.trace_id)
    assert (second.value, second.trace_id) == (7, two.trace_id)
    assert (collection.counters[0].points[0].value, collection.histograms[0].points[0].count) == (6, 4)


def test_other_series_keep_none_unless_one_is_offered(registry: InstrumentRegistry, tracer: Tracer) -> None:
    wait = registry.histogram("h", boundaries=(1.0,)).labels()
    with tracer.span("one") as one:
        wait.record(0.5)
    assert collect(registry).histograms[0].points[0].exemplars == ()
    wait.offer(0.5, one)
    assert [exemplar.span_id for exemplar in collect(registry).histograms[0].points[0].exemplars] == [one.span_id]
    registry.reset()
    wait.record(1)
    assert collect(registry).histograms[0].points[0].exemplars == ()
