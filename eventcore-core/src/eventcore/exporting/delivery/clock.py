"""When the cycles of one exporter are due. No threads and no sleeping: every method is given the time.

A clock belongs to one worker thread, which alone calls it, so that it needs no lock. Times are
seconds of ``time.monotonic`` unless a parameter says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from eventcore.exporting.context import Signal
from eventcore.exporting.delivery.settings import PipelineSettings
from eventcore.ground import backoff


class CpuBudget:
    """The processor time that converting spans may use, so that tracing leaves the interpreter to the application.

    Args:
        share: processor seconds that become available each second.
        now: the time at which the budget begins, with nothing used.
        burst: how many seconds' worth may be saved up.
    """

    def __init__(self, share: float, now: float, burst: float = 2.0) -> None:
        self._share = share
        self._limit = self._left = share * burst
        self._at = now

    def left(self, now: float) -> float:
        """Processor seconds that may be used now; negative when more was used than allowed."""
        self._left = min(self._left + (now - self._at) * self._share, self._limit)
        self._at = now
        return self._left

    def available_at(self, seconds: float, now: float) -> float:
        """The earliest time at which ``seconds`` of processor time may be used."""
        return now + max(0.0, (seconds - self.left(now)) / self._share)

    def spend(self, seconds: float) -> None:
        """Count processor time that was used."""
        self._left -= seconds


class CycleClock:
    """Decides when the next cycle of each signal is due, and how long it may take.

    Metrics are due on a beat: at multiples of ``interval`` since the epoch, so that pipelines with
    the same interval share a collection. Spans are due ``span_interval`` after the first one waits,
    or, when a whole batch waits, as soon as the budget allows. After a failed cycle its signal is
    due when the backoff, or the time that the backend asked for, has passed.

    Args:
        signals: what the exporter takes.
        interval: seconds between metrics cycles; ``None``: only on request.
        settings: intervals, limits and backoff.
        now: the present time.

    Attributes:
        budget: processor time that span cycles may use.
    """

    def __init__(self, signals: Iterable[Signal], interval: float | None, settings: PipelineSettings, now: float) -> None:
        self.budget = CpuBudget(settings.cpu_budget, now)
        self._interval = interval
        self._settings = settings
        # A signal that is due at infinity waits for an event: a span to export, or a request.
        self._due_at: dict[Signal, float] = dict.fromkeys(signals, inf)
        self._failed_attempts: dict[Signal, int] = dict.fromkeys(signals, 0)

    def due(self, now: float) -> list[Signal]:
        """The signals whose cycles are due."""
        return [signal for signal, due_at in self._due_at.items() if due_at <= now]

    def due_at(self, signal: Signal) -> float:
        """When the signal is due; infinity while nothing is planned."""
        return self._due_at[signal]

    def next_due(self) -> float:
        """When the first signal is due; infinity while nothing is planned."""
        return min(self._due_at.values(), default=inf)

    def cycle_seconds(self, signal: Signal) -> float:
        """How many seconds a cycle may take: as long as one hook call, or 80 % of the interval where that is longer."""
        interval = self._interval if signal == "metrics" else None
        return max(self._settings.export_timeout, 0.8 * (interval or 0.0))

    def plan_metrics(self, now: float, wall_time: float) -> None:
        """Plan the next metrics cycle on the beat; ``wall_time`` is seconds since the epoch."""
        if "metrics" in self._due_at:
            self._due_at["metrics"] = inf if self._interval is None else now + self._interval - wall_time % self._interval

    def plan_spans(self, waiting: int, now: float, *, cost: float, failing: bool) -> None:
        """Plan the next span cycle; called before each wait, with the number of spans that wait or are in flight.

        Args:
            waiting: how many spans the worker may export.
            now: the present time.
            cost: processor seconds that one span takes.
            failing: whether the last span cycle failed. Its backoff then holds, also when a whole
                batch waits.
        """
        due_at = self._due_at["spans"]
        if not waiting:
            self._due_at["spans"] = inf
        elif due_at == inf:
            self._due_at["spans"] = now + self._settings.span_interval
        elif waiting >= self._settings.span_batch and not failing:
            self._due_at["spans"] = min(due_at, self.budget.available_at(cost, now))

    def affordable_spans(self, now: float, cost: float) -> int:
        """How many spans the budget allows to convert now, each of which takes ``cost`` processor seconds; may be negative."""
        return int(self.budget.left(now) / cost)

    def committed(self, signal: Signal, now: float, wall_time: float) -> None:
        """A cycle was committed: forget its failed attempts and plan the next one."""
        self._failed_attempts[signal] = 0
        if signal == "metrics":
            self.plan_metrics(now, wall_time)
        else:
            self._due_at["spans"] = inf

    def attempt(self, signal: Signal) -> int:
        """The number of the next cycle of the signal, from 1: one more than cycles have failed in a row."""
        return self._failed_attempts[signal] + 1

    def failed(self, signal: Signal, now: float, after: float | None) -> float:
        """A cycle failed: plan the next attempt. Returns how many seconds it waits.

        Args:
            signal: the signal of the cycle.
            now: when the cycle ended.
            after: how many seconds the backend asked to wait; ``None``: the pipeline's own backoff. A
                backend that asks for more than ``max_age`` is tried when the batch is that old.
        """
        self._failed_attempts[signal] += 1
        pause = self.backoff_seconds(self._failed_attempts[signal]) if after is None else min(after, self._settings.max_age)
        self._plan(signal, now + pause)
        return pause

    def given_up(self, signal: Signal, now: float) -> None:
        """The backend takes nothing of this signal: plan the next attempt, with new data, in the longest pause."""
        self._failed_attempts[signal] += 1
        self._plan(signal, now + self._settings.max_backoff)

    def _plan(self, signal: Signal, due_at: float) -> None:
        # Nobody waits for the metrics of a pull exporter until the next request.
        self._due_at[signal] = inf if signal == "metrics" and self._interval is None else due_at

    def backoff_seconds(self, attempts: int) -> float:
        """Seconds to wait after so many failed attempts in a row."""
        return backoff(attempts, self._settings.backoff, self._settings.max_backoff)
