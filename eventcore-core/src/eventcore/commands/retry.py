"""How often and how soon a command that met a conflict is tried again."""

from __future__ import annotations

import random
from typing import final

import msgspec


@final
class RetryPolicy(msgspec.Struct, frozen=True):
    """The first retry is immediate; those after it wait a random time up to a limit that doubles (full jitter).

    Args:
        attempts: how many attempts a command has in all, 1 or more.
        base_delay: the limit before the third attempt, in seconds.
        max_delay: the largest limit, in seconds.

    Raises:
        ValueError: a value is out of its range.

    >>> RetryPolicy(attempts=3).delay(after_attempt=1)
    0.0
    """

    attempts: int = 10
    base_delay: float = 0.005
    max_delay: float = 1.0

    def __post_init__(self) -> None:
        if type(self.attempts) is not int or not 1 <= self.attempts <= 1000:
            raise ValueError(f"RetryPolicy: attempts={self.attempts!r}; expected an int from 1 to 1000")
        if not 0 <= self.base_delay <= self.max_delay <= 3600:
            raise ValueError(
                f"RetryPolicy: base_delay={self.base_delay!r}, max_delay={self.max_delay!r}; "
                "expected seconds with 0 <= base_delay <= max_delay <= 3600"
            )

    def delay(self, after_attempt: int) -> float:
        """Seconds to wait after the given attempt (from 1)."""
        if after_attempt <= 1:
            return 0.0
        # The exponent is bounded so that the power cannot overflow.
        return random.uniform(0.0, min(self.max_delay, self.base_delay * 2.0 ** min(after_attempt - 2, 60)))
