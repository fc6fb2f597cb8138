"""How a store does: checks of the store and of what runs on it, for probes, for metrics and for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventcore.ground import when_used
from eventcore.health.bounded import HealthCheck
from eventcore.health.settings import HealthSettings
from eventcore.health.values import CheckResult, Figure, Health, HealthStatus

if TYPE_CHECKING:
    from eventcore.health.asgi import asgi_app
    from eventcore.health.listener import HealthListener

__all__ = ["CheckResult", "Figure", "Health", "HealthCheck", "HealthListener", "HealthSettings", "HealthStatus", "asgi_app"]

# What serves health over HTTP is imported when it is first used: it takes a sixth of the time that importing eventcore takes.
__getattr__ = when_used(__name__, HealthListener="eventcore.health.listener", asgi_app="eventcore.health.asgi")
