from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventcore.catalogue import ActiveStreams


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_nothing_touched_is_0() -> None:
    assert ActiveStreams().count() == 0


@given(st.lists(st.lists(st.integers(0, 50).map(str)), max_size=5))
def test_few_streams_are_counted_exactly(minutes: list[list[str]]) -> None:
    clock = Clock()
    active = ActiveStreams(clock)
    for number, streams in enumerate(minutes):
        clock.seconds = 60.0 * number
        active.touch(streams)
    assert active.count() == len({stream for streams in minutes for stream in streams})


def test_a_stream_is_forgotten_after_five_minutes() -> None:
    clock = Clock()
    active = ActiveStreams(clock)
    active.touch(["a"])
    clock.seconds = 60.0
    active.touch(["b"])
    clock.seconds = 299.0
    assert active.count() == 2
    clock.seconds = 300.0
    assert active.count() == 1
    clock.seconds = 3600.0
    assert active.count() == 0
    active.touch(["c"])
    assert active.count() == 1


@settings(max_examples=5, deadline=None)
@given(st.sampled_from([9_999, 10_001, 15_000, 100_000]), st.integers(1, 5))
def test_many_streams_are_estimated_within_a_few_percent(count: int, minutes: int) -> None:
    clock = Clock()
    active = ActiveStreams(clock)
    for number in range(count):
        clock.seconds = 60.0 * (number * minutes // count)
        active.touch([f"stream-{number}"])
        active.touch([f"stream-{number // 2}"])
    # Four standard errors of 1.6 %.
    assert active.count() == pytest.approx(count, rel=0.065)


def test_memory_is_bounded() -> None:
    active = ActiveStreams(Clock())
    active.touch([str(number) for number in range(50_000)])
    [minute] = active._minutes.values()
    assert isinstance(minute, bytearray)
    assert len(minute) == 4096
