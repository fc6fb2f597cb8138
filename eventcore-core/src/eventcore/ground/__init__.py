"""Tools that every layer may use: retries, tasks and pacing. They know nothing of telemetry or event stores."""

from eventcore.ground.backoff import backoff
from eventcore.ground.tasks import OwnedTask, cancel_and_wait, spawn

__all__ = ["OwnedTask", "backoff", "cancel_and_wait", "spawn"]
