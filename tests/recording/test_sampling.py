"""Sampling: up to a rate, by a ratio, and as the parent was."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import pytest

from eventcore.recording import IdGenerator, RateSampler, RatioSampler, TraceContext, Tracer


def test_the_rate_cap_takes_a_seconds_worth_at_once_and_counts_the_rest() -> None:
    sampler = RateSampler(10)
    decisions = Counter(sampler.sample() for _ in range(1000))
    assert 10 <= decisions[True] <= 12
    assert sampler.unsampled == decisions[False]


@pytest.mark.parametrize(("rate", "taken"), [(0, 0), ("all", 100), (0.001, 1)])
def test_the_rate_cap_at_its_ends(rate: float | Literal["all"], taken: int) -> None:
    sampler = RateSampler(rate)
    assert sum(sampler.sample() for _ in range(100)) == taken


# Sampling that OpenTelemetry's variables ask for
def test_a_ratio_samples_by_trace_id_so_that_processes_agree() -> None:
    ids = [IdGenerator().bits(128) for _ in range(2000)]
    first, second = RatioSampler(0.25), RatioSampler(0.25)
    chosen = [first.sample(trace_id) for trace_id in ids]
    assert chosen == [second.sample(trace_id) for trace_id in ids]
    assert 350 < sum(chosen) < 650
    assert first.unsampled == chosen.count(False)
    assert all(map(RatioSampler(1).sample, ids))
    assert not any(map(RatioSampler(0).sample, ids))


def test_a_sampler_that_is_not_parent_based_decides_for_each_span_anew() -> None:
    always = Tracer(RatioSampler(1, follows_parent=False), IdGenerator())
    never = Tracer(RatioSampler(0, follows_parent=False), IdGenerator())
    follows = Tracer(RatioSampler(0), IdGenerator())
    assert always.span("x", parent=TraceContext(1, 2, 0)).trace_flags == 1
    assert never.span("x", parent=TraceContext(1, 2, 1)).trace_flags == 0
    assert follows.span("x", parent=TraceContext(1, 2, 1)).trace_flags == 1
