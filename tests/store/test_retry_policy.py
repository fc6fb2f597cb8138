from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventcore import RetryPolicy


def test_the_first_retry_is_immediate() -> None:
    assert RetryPolicy(base_delay=1.0).delay(after_attempt=1) == 0.0


@given(attempt=st.integers(2, 5000), base=st.floats(0, 1), factor=st.floats(1, 100))
def test_delays_double_up_to_their_limit(attempt: int, base: float, factor: float) -> None:
    policy = RetryPolicy(base_delay=base, max_delay=base * factor)
    assert 0.0 <= policy.delay(attempt) <= min(base * factor, base * 2.0 ** min(attempt - 2, 1000))


def test_delays_are_spread_over_the_whole_range() -> None:
    policy = RetryPolicy(base_delay=1.0, max_delay=1.0)
    delays = [policy.delay(5) for _ in range(1000)]
    assert min(delays) < 0.1 < 0.9 < max(delays)


@pytest.mark.parametrize(
    "values",
    [
        {"attempts": 0},
        {"attempts": 1.5},
        {"attempts": True},
        {"base_delay": -1},
        {"base_delay": 2, "max_delay": 1},
        {"max_delay": 1e9},
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        RetryPolicy(**values)  # type: ignore[arg-type]  # that is the point
