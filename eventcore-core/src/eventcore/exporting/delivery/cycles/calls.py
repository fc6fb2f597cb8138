"""Calls of hooks within a cycle: their timeouts, what their answers mean, and what their exceptions mean."""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import isfinite
from typing import Any, Final, final

import msgspec

from eventcore.exporting.context import GiveUp, Rejected, RetryLater, Signal
from eventcore.exporting.delivery.cycles.chunks import ChunkSize
from eventcore.exporting.delivery.hook_runner import FarError, HookFailed, ProcessEnded
from eventcore.exporting.delivery.pipeline import Pipeline
from eventcore.ground import describe_error, text_of, traceback_of

METRIC_HOOKS: Final = ("export_counters", "export_gauges", "export_histograms")
_NOTHING_REJECTED: Final = Rejected(0, "")
# What these return is ignored.
_RETURN_NOTHING: Final = ("start", "begin", "shutdown")
# What converting a value raises when the value is bad. A backend that is down raises other things.
_DATA_ERRORS: Final = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError)


@final
class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a cycle was not committed.

    Attributes:
        problem: in one line, for the log and the report.
        traceback: for the log; empty where it would tell nothing.
        after: how many seconds the backend asks to wait, if it does.
        outcome_unknown: whether the backend may have taken the data all the same.
        gives_up: whether the same data must not be sent again.
        unsupported: whether the backend takes nothing of this signal.
        lost: whether spans that may have arrived are not sent again.
    """

    problem: str
    traceback: str = ""
    after: float | None = None
    outcome_unknown: bool = False
    gives_up: bool = False
    unsupported: bool = False
    lost: bool = False


class OutOfTime(Exception):
    """The cycle's time was used up between two hooks."""


class BadChunk(Exception):
    """An export hook raised something that may come from a value in its chunk."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class HookCalls:
    """Calls the hooks of one exporter within its cycles. Used by the worker thread alone.

    Args:
        pipeline: the exporter's hooks and settings.

    Attributes:
        sizes: how much each export hook gets at once.
        can_begin: whether the exporter learns when a cycle begins, and so drops what it holds.
        delivers_at_flush: whether the export hooks only collect, and ``flush`` delivers.
        converts_only: whether an export hook may be called only to see whether it raises: the
            exporter drops what it holds when the cycle begins anew.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._runner = pipeline.runner
        self._timeout = pipeline.settings.export_timeout
        self._implemented = pipeline.handle.implemented
        self.sizes = {hook: ChunkSize() for hook in METRIC_HOOKS}
        self.sizes["export_spans"] = ChunkSize.of_spans(pipeline.settings.cpu_budget)
        self.can_begin = "begin" in self._implemented
        self.delivers_at_flush = "flush" in self._implemented
        self.converts_only = self.can_begin and self.delivers_at_flush

    def implements(self, hook: str) -> bool:
        """Whether the exporter has the hook."""
        return hook in self._implemented

    def begin(self, signal: Signal, attempt: int, deadline: float) -> None:
        """Begin a cycle, or begin it anew."""
        if self._runner.handle.ended:
            # The pipeline restarts it between two cycles; here, the process has ended since, or a flush tries again.
            self._runner.call("start", max(min(self._timeout, deadline - time.monotonic()), 0.0), context=None)
        self._call("begin", deadline, signal=signal, attempt=attempt)

    def flush(self, signal: Signal, deadline: float) -> Rejected:
        """End a cycle."""
        return self._call("flush", deadline, signal=signal)

    def export(self, hook: str, chunk: Sequence[Any], items: int, deadline: float, preparation: float = 0.0) -> Rejected:
        """Call an export hook, and learn how large its next chunk may be.

        Args:
            hook: its name.
            chunk: what it gets.
            items: the number of spans or points in the chunk.
            deadline: when the cycle must have ended.
            preparation: processor seconds that preparing the chunk took.
        """
        before = self._runner.cpu_seconds
        answer = self._call(hook, deadline, **{hook.removeprefix("export_"): chunk})
        self.sizes[hook].learn(items, self._runner.cpu_seconds - before + preparation)
        return answer

    def failure(self, error: BaseException) -> Failure:
        """What an exception means that has ended a cycle.

        An exception says that nothing was delivered. The outcome is unknown where the hook was cut,
        where it says so, and where it raised only after its time, unless it says what that means.
        """
        if isinstance(error, OutOfTime):
            # An exporter that does not learn of the next beginning keeps what it was given, and
            # delivers it with the next flush.
            return Failure(problem=text_of(error), outcome_unknown=self.delivers_at_flush and not self.can_begin)
        return failure_of(error, overran=self._runner.overran)

    def blames_data(self, error: BaseException) -> bool:
        """Whether an exception of an export hook may come from a value in the chunk.

        Any unexpected exception may, where the hook only converts. Where it also sends, only those
        that converting raises may.
        """
        return may_be_data_error(error) if self.converts_only else is_data_error(error)

    def _call(self, hook: str, deadline: float, **arguments: object) -> Rejected:
        if hook not in self._implemented:
            return _NOTHING_REJECTED
        left = min(self._timeout, deadline - time.monotonic())
        if left <= 0:
            raise OutOfTime(f"the cycle's time was used up before {hook}")
        return checked_answer(hook, self._runner.call(hook, left, **arguments))


def failure_of(error: BaseException, *, overran: bool = False) -> Failure:
    """What an exception of a hook means; ``overran``: whether the hook raised it only after its time."""
    if isinstance(error, GiveUp):
        unsupported = _attribute(error, "unsupported") is True
        return Failure(problem=text_of(error), gives_up=True, unsupported=unsupported)
    if isinstance(error, RetryLater):
        unknown = _attribute(error, "outcome_unknown") is True
        return Failure(problem=text_of(error), after=_seconds(error), outcome_unknown=unknown)
    if isinstance(error, HookFailed):
        unknown = error.outcome_unknown or overran
        return Failure(problem=text_of(error), outcome_unknown=unknown, lost=isinstance(error, ProcessEnded))
    trace = error.traceback if isinstance(error, FarError) else "" if isinstance(error, OSError) else traceback_of(error)
    return Failure(problem=describe_error(error), traceback=trace, outcome_unknown=overran)


def is_data_error(error: BaseException) -> bool:
    """Whether converting a bad value raises such exceptions. A backend that is down raises others."""
    if isinstance(error, FarError):
        return error.is_data
    return may_be_data_error(error) and isinstance(error, _DATA_ERRORS)


def may_be_data_error(error: BaseException) -> bool:
    """Whether a hook that only converts may have raised it because of a bad value."""
    if isinstance(error, FarError):
        return error.may_be_data
    told = isinstance(error, (GiveUp, RetryLater, OutOfTime, HookFailed, OSError, MemoryError))
    return isinstance(error, Exception) and not told


def checked_answer(hook: str, answer: object) -> Rejected:
    """What a hook has returned.

    Raises:
        HookFailed: it has returned nonsense.
    """
    # Not `isinstance`, which asks the answer for its `__class__`: that may be a plugin's property.
    if type(answer) is Rejected:
        return answer
    if answer is None or hook in _RETURN_NOTHING:
        return _NOTHING_REJECTED
    raise HookFailed(
        f"hook {hook} returned {_shown(answer)}; expected None when it has delivered, or Rejected(count, reason); raise "
        "RetryLater or any other exception when it has not"
    )


def _shown(answer: object) -> str:
    try:
        shown = repr(answer)
    except BaseException:  # noqa: BLE001  # an object of a plugin may raise anything
        shown = f"a {text_of(type(answer))} that cannot be shown"
    return text_of(shown, 80)


def _attribute(error: BaseException, name: str) -> object:
    try:
        found: object = getattr(error, name)
    except BaseException:  # noqa: BLE001  # a subclass of a plugin may have no such attribute, or one that raises
        return None
    return found


def _seconds(error: BaseException) -> float | None:
    after = _attribute(error, "after")
    return float(after) if isinstance(after, (int, float)) and isfinite(after) and after >= 0 else None
