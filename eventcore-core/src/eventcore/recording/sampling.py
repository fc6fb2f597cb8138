"""Head sampling: whether a trace is recorded is decided once, where it begins."""

from __future__ import annotations

from time import monotonic
from typing import Literal


class RateSampler:
    """Samples every new trace up to a rate, and at most one second's worth of traces at once.

    This is the generic cell rate algorithm: one number holds the time at which the allowance will be used up. It takes no lock;
    threads that race may sample one trace too many, which does no harm.

    Attributes:
        unsampled: how many traces were not sampled.

    Args:
        traces_per_second: 0 or more, or ``"all"``.
    """

    __slots__ = ("_interval", "_used_up_at", "unsampled")

    def __init__(self, traces_per_second: float | Literal["all"]) -> None:
        self._interval = 0.0 if traces_per_second == "all" else 1 / traces_per_second if traces_per_second > 0 else -1.0
        self._used_up_at = 0.0
        self.unsampled = 0

    def sample(self) -> bool:
        """Whether to record the trace that begins now; if not, it is counted in ``unsampled``."""
        interval = self._interval
        if not interval:
            return True
        now = monotonic()
        used_up_at = self._used_up_at
        if used_up_at < now:
            used_up_at = now
        if interval > 0 and used_up_at + interval <= now + max(1.0, interval):
            self._used_up_at = used_up_at + interval
            return True
        self.unsampled += 1
        return False
