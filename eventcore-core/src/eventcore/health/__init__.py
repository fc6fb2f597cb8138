"""How a store does: checks of the store and of what runs on it, for probes, for metrics and for people."""

from eventcore.health.asgi import asgi_app
from eventcore.health.bounded import HealthCheck
from eventcore.health.listener import HealthListener
from eventcore.health.settings import HealthSettings
from eventcore.health.values import CheckResult, Figure, Health, HealthStatus

__all__ = ["CheckResult", "Figure", "Health", "HealthCheck", "HealthListener", "HealthSettings", "HealthStatus", "asgi_app"]
