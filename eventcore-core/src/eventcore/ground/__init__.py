"""Tools that every layer may use, each written once. They know nothing of telemetry or event stores."""

from eventcore.ground.backoff import backoff
from eventcore.ground.forking import in_forked_child, leave_to_parent
from eventcore.ground.hints import did_you_mean
from eventcore.ground.tasks import OwnedTask, cancel_and_wait, spawn
from eventcore.ground.threads import in_background
from eventcore.ground.yielding import LoopYielder

__all__ = [
    "LoopYielder",
    "OwnedTask",
    "backoff",
    "cancel_and_wait",
    "did_you_mean",
    "in_background",
    "in_forked_child",
    "leave_to_parent",
    "spawn",
]
