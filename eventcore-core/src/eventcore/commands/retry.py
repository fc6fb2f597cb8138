"""How often, and after what delay, a command that met a conflict is retried."""

from __future__ import annotations

from typing import final

import msgspec

from eventcore.ground import backoff
from eventcore.ground.arguments import are_delays


@final
class RetryPolicy(msgspec.Struct, frozen=True):
    """When to retry a command after a conflict with another writer.

    The first retry is immediate. Every later one waits a random time between 0 and a limit that doubles
    with each retry (full jitter).

    Args:
        attempts: attempts in all, from 1 (no retry) to 1000.
        base_delay: the limit before the third attempt, in seconds, from 0.
        max_delay: the largest limit, in seconds, from ``base_delay`` to 3600.

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
        if not are_delays(self.base_delay, self.max_delay):
            raise ValueError(
                f"RetryPolicy: base_delay={self.base_delay!r}, max_delay={self.max_delay!r}; "
                "expected seconds with 0 <= base_delay <= max_delay <= 3600"
            )

    def delay(self, after_attempt: int) -> float:
        """Seconds to wait after the given attempt, which counts from 1."""
        if after_attempt <= 1:
            return 0.0
        return backoff(after_attempt - 1, self.base_delay, self.max_delay, at_least=0.0)
