"""Head sampling: whether a trace is recorded is decided once, where it begins."""

from __future__ import annotations

from time import monotonic
from typing import Final, Literal, Protocol

_LOW_64_BITS: Final = (1 << 64) - 1


class Sampler(Protocol):
    """Decides which traces are recorded.

    Attributes:
        follows_parent: whether a span that has a parent is recorded exactly if the parent is.
        samples_all: whether it records every trace, so that it need not be asked.
        unsampled: how many traces were not sampled.
    """

    follows_parent: bool
    samples_all: bool
    unsampled: int

    def sample(self, trace_id: int) -> bool:
        """Whether to record the trace that begins now; if not, it is counted in ``unsampled``."""
        ...

    def decide(self, trace_id: int) -> bool:
        """Whether to record a span that has a parent, if ``follows_parent`` is false."""
        ...


class RateSampler:
    """Samples every new trace up to a rate, and at most one second's worth of traces at once.

    This is the generic cell rate algorithm: one number holds the time at which the allowance will be used up. It takes no lock;
    threads that race may sample one trace too many, which does no harm.

    Attributes:
        follows_parent, samples_all, unsampled: see ``Sampler``.

    Args:
        traces_per_second: 0 or more, or ``"all"``.
    """

    __slots__ = ("_interval", "_used_up_at", "follows_parent", "samples_all", "unsampled")

    def __init__(self, traces_per_second: float | Literal["all"]) -> None:
        self._interval = 0.0 if traces_per_second == "all" else 1 / traces_per_second if traces_per_second > 0 else -1.0
        self._used_up_at = 0.0
        self.follows_parent = True
        self.samples_all = not self._interval
        self.unsampled = 0

    def sample(self, trace_id: int = 0) -> bool:
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

    def decide(self, trace_id: int) -> bool:
        """Never asked: the parent decides."""
        return True


class RatioSampler:
    """Samples a share of all traces, chosen by their ids, as OpenTelemetry's ``TraceIdRatioBased`` does.

    So processes with one ratio sample the same traces. A ratio of 1 records every trace, and 0 records none.

    Args:
        ratio: from 0 to 1.
        follows_parent: false decides for each span by its trace id, whatever its parent decided.
    """

    __slots__ = ("_bound", "follows_parent", "samples_all", "unsampled")

    def __init__(self, ratio: float, *, follows_parent: bool = True) -> None:
        self._bound = round(ratio * (_LOW_64_BITS + 1))
        self.follows_parent = follows_parent
        self.samples_all = ratio >= 1
        self.unsampled = 0

    def sample(self, trace_id: int) -> bool:
        """Whether to record the trace that begins now; if not, it is counted in ``unsampled``."""
        if sampled := self.decide(trace_id):
            return sampled
        self.unsampled += 1
        return False

    def decide(self, trace_id: int) -> bool:
        """Whether the trace belongs to the share."""
        return trace_id & _LOW_64_BITS < self._bound
