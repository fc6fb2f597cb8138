"""When cycles are due: plain numbers for times, no threads and no sleeping."""

from __future__ import annotations

from math import inf

import pytest

from eventcore.exporting import Signal
from eventcore.exporting.delivery import PipelineSettings
from eventcore.exporting.delivery.clock import CpuBudget, CycleClock

BOTH: tuple[Signal, ...] = ("metrics", "spans")
SETTINGS = PipelineSettings(
    span_interval=2.0, span_batch=100, backoff=1.0, max_backoff=8.0, export_timeout=10.0, cpu_budget=0.1
)


def clock(
    signals: tuple[Signal, ...] = BOTH, interval: float | None = 10.0, settings: PipelineSettings = SETTINGS
) -> CycleClock:
    return CycleClock(signals, interval, settings, now=1000.0)


def plan_spans(clock: CycleClock, waiting: int, now: float, *, cost: float = 0.0001, failing: bool = False) -> float:
    clock.plan_spans(waiting, now, cost=cost, failing=failing)
    return clock.due_at("spans")


def test_nothing_is_due_before_something_is_planned() -> None:
    fresh = clock()
    assert fresh.due(5000.0) == []
    assert fresh.next_due() == inf
    assert clock(()).next_due() == inf


def test_metrics_are_due_on_a_beat_that_all_pipelines_of_an_interval_share() -> None:
    one, two = clock(), clock()
    one.plan_metrics(now=1000.0, wall_time=1_700_000_003.0)
    two.plan_metrics(now=1004.5, wall_time=1_700_000_007.5)
    assert one.due_at("metrics") == two.due_at("metrics") == 1007.0
    assert one.due(1006.9) == []
    assert one.due(1007.0) == ["metrics"]


def test_exactly_on_the_beat_the_next_cycle_is_a_whole_interval_away() -> None:
    beating = clock()
    beating.committed("metrics", now=1000.0, wall_time=1_700_000_000.0)
    assert beating.due_at("metrics") == 1010.0


def test_the_metrics_of_a_pull_exporter_are_never_due() -> None:
    pulled = clock(interval=None)
    pulled.plan_metrics(1000.0, 1_700_000_003.0)
    assert pulled.due_at("metrics") == inf
    pulled.failed("metrics", 1001.0, None)
    assert pulled.due_at("metrics") == inf


def test_a_clock_without_metrics_plans_none() -> None:
    spans_only = clock(("spans",))
    spans_only.plan_metrics(1000.0, 1_700_000_003.0)
    assert spans_only.next_due() == inf


def test_spans_are_due_an_interval_after_the_first_one_waits() -> None:
    waiting = clock()
    assert plan_spans(waiting, 1, 1000.0) == 1002.0
    assert plan_spans(waiting, 50, 1001.0) == 1002.0
    assert waiting.due(1002.0) == ["spans"]
    assert waiting.next_due() == 1002.0


def test_without_spans_that_wait_none_are_due() -> None:
    waiting = clock()
    plan_spans(waiting, 1, 1000.0)
    assert plan_spans(waiting, 0, 1001.0) == inf


def test_a_full_batch_is_due_at_once_while_the_budget_lasts() -> None:
    waiting = clock()
    plan_spans(waiting, 1, 1000.0)
    assert plan_spans(waiting, 100, 1000.5) == 1000.5


def test_a_full_batch_waits_for_the_budget_but_never_beyond_the_interval() -> None:
    waiting = clock()
    waiting.budget.spend(0.2 + 0.05)  # all of the burst, and 0.05 s more
    plan_spans(waiting, 1, 1000.0)
    # 0.05 s that are owed and 0.01 s for the next span become available at 0.1 s a second.
    assert plan_spans(waiting, 100, 1000.0, cost=0.01) == pytest.approx(1000.6)
    waiting.budget.spend(1.0)
    plan_spans(waiting, 0, 1000.0)
    plan_spans(waiting, 1, 1000.0)
    assert plan_spans(waiting, 100, 1000.0, cost=0.01) == 1002.0


def test_after_a_failure_a_full_batch_waits_for_the_backoff() -> None:
    waiting = clock()
    waiting.failed("spans", 1000.0, 5.0)
    assert plan_spans(waiting, 100, 1001.0, failing=True) == 1005.0


@pytest.mark.conforms("OTLP", "Without `RetryInfo`, retries back off exponentially, with jitter.")
def test_the_backoff_doubles_with_each_failure_up_to_its_limit() -> None:
    failing = clock()
    pauses: list[float] = []
    for attempt in range(1, 7):
        assert failing.attempt("metrics") == attempt
        pauses.append(failing.failed("metrics", 2000.0, None))
        assert failing.due_at("metrics") == 2000.0 + pauses[-1]
    for pause, longest in zip(pauses, (1.0, 2.0, 4.0, 8.0, 8.0, 8.0), strict=True):
        assert longest / 2 <= pause <= longest


def test_a_backend_that_says_when_to_come_back_is_heard_within_the_limit() -> None:
    failing = clock()
    failing.failed("spans", 1000.0, 0.25)
    assert failing.due_at("spans") == 1000.25
    failing.failed("spans", 1001.0, 3600.0)
    assert failing.due_at("spans") == 1001.0 + SETTINGS.max_age


def test_attempts_are_counted_for_each_signal_and_begin_anew_after_a_commit() -> None:
    counting = clock()
    for _ in range(4):
        counting.failed("spans", 1000.0, None)
    counting.failed("metrics", 1000.0, None)
    assert (counting.attempt("spans"), counting.attempt("metrics")) == (5, 2)
    counting.committed("spans", 1001.0, 0.0)
    assert (counting.attempt("spans"), counting.attempt("metrics")) == (1, 2)


def test_a_signal_that_is_given_up_is_tried_again_after_the_longest_pause() -> None:
    refused = clock()
    refused.given_up("spans", 1000.0)
    assert plan_spans(refused, 100, 1001.0, failing=True) == 1008.0


def test_a_committed_span_cycle_leaves_nothing_planned() -> None:
    committed = clock()
    plan_spans(committed, 1, 1000.0)
    committed.committed("spans", 1000.0, 0.0)
    assert committed.due_at("spans") == inf


def test_a_cycle_may_take_as_long_as_a_hook_or_most_of_a_long_interval() -> None:
    assert clock(interval=10.0).cycle_seconds("metrics") == 10.0
    assert clock(interval=60.0).cycle_seconds("metrics") == 48.0
    assert clock(interval=60.0).cycle_seconds("spans") == 10.0
    assert clock(interval=None).cycle_seconds("metrics") == 10.0


def test_a_budget_grows_by_its_share_up_to_the_burst() -> None:
    budget = CpuBudget(share=0.1, now=0.0, burst=2.0)
    assert budget.left(100.0) == pytest.approx(0.2)
    budget.spend(0.25)
    assert budget.left(100.0) == pytest.approx(-0.05)
    assert budget.left(100.3) == pytest.approx(-0.02)
    assert budget.available_at(0.01, 100.3) == pytest.approx(100.6)
    assert budget.available_at(0.01, 200.0) == 200.0


def test_the_budget_says_how_many_spans_it_allows() -> None:
    limited = clock()
    assert limited.affordable_spans(1000.0, cost=0.002) == 100
    limited.budget.spend(0.3)
    assert limited.affordable_spans(1000.0, cost=0.002) < 0


@pytest.mark.conforms("OTLP", "The delay of `RetryInfo` is followed.")
@pytest.mark.parametrize("signal", BOTH)
def test_a_backend_that_asks_for_a_long_pause_gets_it_up_to_the_age_of_a_batch(signal: Signal) -> None:
    """Reported for an exporter that waited for the server's delay only up to a limit of its own (opentelemetry-rust#3634)."""
    planned = clock()
    assert SETTINGS.max_backoff < 120.0 < SETTINGS.max_age
    assert planned.failed(signal, 1000.0, 120.0) == 120.0
    assert planned.due_at(signal) == 1120.0
    assert planned.failed(signal, 1200.0, 86_400.0) == SETTINGS.max_age
