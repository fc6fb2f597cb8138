"""How a hook ended in the other process: what it returned or raised, as plain values, and back."""

from __future__ import annotations

from typing import Any, TypeAlias

from eventcore.exporting.context import GiveUp, Rejected, RetryLater
from eventcore.exporting.delivery.cycles.calls import failure_of, is_data_error, may_be_data_error
from eventcore.exporting.delivery.hook_runner import FarError, HookFailed
from eventcore.ground import text_of, traceback_of, type_name

Outcome: TypeAlias = list[Any] | None


def outcome_of(answer: Rejected) -> Outcome:
    """The outcome of a hook that has returned."""
    return ["rejected", answer.count, answer.reason] if answer.count else None


def outcome_of_error(error: BaseException, *, converts: bool) -> Outcome:
    """The outcome of a hook that has raised; ``converts``: whether a value that it was given may be to blame."""
    failure = failure_of(error)
    if isinstance(error, GiveUp):
        return ["give_up", failure.problem, failure.unsupported]
    if isinstance(error, RetryLater):
        return ["retry", failure.problem, failure.after, failure.outcome_unknown]
    if isinstance(error, HookFailed):
        return ["failed", failure.problem, failure.outcome_unknown]
    trace = "" if isinstance(error, OSError) else traceback_of(error)
    blames = converts and is_data_error(error), converts and may_be_data_error(error)
    return ["raised", type_name(type(error)), text_of(error), trace, *blames]


def settle(outcome: Outcome) -> Rejected | None:
    """Return what the hook has returned, or raise what it has raised.

    Raises:
        GiveUp, RetryLater, HookFailed: as the hook did, with the same text.
        FarError: it raised another exception, whose name and text this one has.
    """
    if outcome is None:
        return None
    kind, *rest = outcome
    if kind == "rejected":
        return Rejected(*rest)
    if kind == "give_up":
        raise GiveUp(*rest)
    if kind == "retry":
        text, after, outcome_unknown = rest
        error = RetryLater(after, text, outcome_unknown)
        # The text says already when to come back.
        error.args = (text,)
        raise error
    if kind == "failed":
        problem, outcome_unknown = rest
        raise HookFailed(problem, outcome_unknown=outcome_unknown)
    name, text, trace, is_data, may_be_data = rest
    # A class of that name: logs and reports name the class of an exception.
    raise type(name, (FarError,), {})(text, traceback=trace, is_data=is_data, may_be_data=may_be_data)
