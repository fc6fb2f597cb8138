from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventcore.ground import backoff


@given(retry=st.integers(1, 10_000), first=st.floats(0, 100), factor=st.floats(1, 1000), at_least=st.floats(0, 1))
def test_a_pause_is_between_its_smallest_part_and_the_whole_of_its_limit(
    retry: int, first: float, factor: float, at_least: float
) -> None:
    longest = first * factor
    limit = min(longest, first * 2.0 ** min(retry - 1, 1000))
    assert limit * at_least * (1 - 1e-9) <= backoff(retry, first, longest, at_least=at_least) <= limit * (1 + 1e-9)


def test_the_limit_doubles_with_each_retry_up_to_the_longest() -> None:
    limits = [backoff(retry, first=0.5, longest=30.0, at_least=1.0) for retry in range(1, 10)]
    assert limits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


@pytest.mark.parametrize("retry", [100, 2000, 10**9])
def test_a_large_number_of_retries_does_not_overflow(retry: int) -> None:
    assert backoff(retry, first=1.0, longest=30.0, at_least=1.0) == 30.0


def test_at_least_half_of_the_limit_is_waited_by_default() -> None:
    pauses = [backoff(3, first=1.0, longest=30.0) for _ in range(1000)]
    assert 2.0 <= min(pauses) < 2.2
    assert 3.8 < max(pauses) <= 4.0


def test_full_jitter_is_spread_over_the_whole_range() -> None:
    pauses = [backoff(3, first=1.0, longest=30.0, at_least=0.0) for _ in range(1000)]
    assert min(pauses) < 0.4 < 3.6 < max(pauses)
