"""Tools that every layer may use, each written once. They know nothing of telemetry or event stores."""

from eventcore.ground.backoff import backoff
from eventcore.ground.breaker import Breaker, BreakerState
from eventcore.ground.describing import (
    cut,
    describe_error,
    did_you_mean,
    in_words,
    is_success,
    log_safely,
    name_in_message,
    own_logger,
    shown,
    text_of,
    traceback_of,
    type_name,
    without_quoted,
    without_values,
)
from eventcore.ground.forking import around_fork, leave_to_parent
from eventcore.ground.importing import absolute_path, dataclass_fields, when_used
from eventcore.ground.limits import CommonTimeout, Slots
from eventcore.ground.tasks import OwnedTask, cancel_and_wait, spawn
from eventcore.ground.threads import in_background
from eventcore.ground.tracebacks import forget_earlier_raises
from eventcore.ground.yielding import LoopSlices, LoopYielder

__all__ = [
    "Breaker",
    "BreakerState",
    "CommonTimeout",
    "LoopSlices",
    "LoopYielder",
    "OwnedTask",
    "Slots",
    "absolute_path",
    "around_fork",
    "backoff",
    "cancel_and_wait",
    "cut",
    "dataclass_fields",
    "describe_error",
    "did_you_mean",
    "forget_earlier_raises",
    "in_background",
    "in_words",
    "is_success",
    "leave_to_parent",
    "log_safely",
    "name_in_message",
    "own_logger",
    "shown",
    "spawn",
    "text_of",
    "traceback_of",
    "type_name",
    "when_used",
    "without_quoted",
    "without_values",
]
