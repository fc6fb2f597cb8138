"""The processor time that spans may cost, so that tracing cannot eat the application's interpreter."""

from __future__ import annotations

import time


class CpuBudget:
    """An allowance that grows by ``share`` seconds a second, up to ``burst`` seconds' worth."""

    def __init__(self, share: float, burst: float = 2.0) -> None:
        self._share = share
        self._most = self._left = share * burst
        self._at = time.monotonic()

    def left(self, now: float) -> float:
        """Processor seconds that may be used now; negative when more was used than allowed."""
        self._left = min(self._left + (now - self._at) * self._share, self._most)
        self._at = now
        return self._left

    def affords_at(self, seconds: float, now: float) -> float:
        """When ``seconds`` may be used."""
        return now + max(0.0, (seconds - self.left(now)) / self._share)

    def spend(self, seconds: float) -> None:
        """Count what was used."""
        self._left -= seconds
