"""What a health check says: plain frozen values, which ``msgspec`` writes as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from math import isfinite
from typing import Final, Literal, TypeAlias, final

import msgspec

from eventcore.ground import cut, text_of
from eventcore.logs.masking import Masker

HealthStatus: TypeAlias = Literal["healthy", "degraded", "unhealthy"]
"""``degraded``: works, and somebody should look. ``unhealthy``: does not work."""

Figure: TypeAlias = int | float | str | bool | None
"""A number or a short text behind a status; ``None`` when it is not known."""

_MAX_REASON: Final = 500
_MAX_FIGURES: Final = 50
_MAX_NAME: Final = 100
_MASKER: Final = Masker()


@final
class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one check found.

    Attributes:
        status: how the checked thing does.
        reason: why it is not healthy, for a person; empty when it is.
        since: when the status became what it is, in UTC; ``None`` in a result that a check of an application returns.
        figures: the numbers that the status was decided by.
        essential: whether the store is not ready while this check is unhealthy.

    >>> CheckResult(status="degraded", reason="the queue is half full", figures={"waiting": 512}).status
    'degraded'
    """

    status: HealthStatus = "healthy"
    reason: str = ""
    since: datetime | None = None
    figures: Mapping[str, Figure] = {}
    essential: bool = False


@final
class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How a store does, as this process sees it.

    Attributes:
        status: ``unhealthy`` when an essential check is unhealthy, ``degraded`` when any other check is not healthy.
        live: whether the process makes progress. False means that only a restart helps: its event loop has been blocked for
            long. A server that is away never makes it false.
        ready: whether commands can be executed now: the store is open and not draining, and no essential check is unhealthy.
        draining: whether ``EventStore.drain`` was called.
        store: the name of the store.
        checks: the result of each check by its name.

    >>> health = Health(status="healthy", live=True, ready=True, draining=False, store="default")
    >>> health.ready, health.problems()
    (True, {})
    """

    status: HealthStatus
    live: bool
    ready: bool
    draining: bool
    store: str
    checks: Mapping[str, CheckResult] = {}

    def problems(self) -> dict[str, CheckResult]:
        """The checks that are not healthy, by name."""
        return {name: check for name, check in self.checks.items() if check.status != "healthy"}


def healthy(**figures: Figure) -> CheckResult:
    """The result of a check that found nothing wrong."""
    return CheckResult(figures=figures)


def degraded(reason: str, **figures: Figure) -> CheckResult:
    """The result of a check that found something to look at."""
    return CheckResult(status="degraded", reason=reason, figures=figures)


def unhealthy(reason: str, **figures: Figure) -> CheckResult:
    """The result of a check that found something that does not work."""
    return CheckResult(status="unhealthy", reason=reason, figures=figures)


def without_secrets(text: str) -> str:
    """A text with the passwords of URLs, and the values of keys that name a secret, replaced by stars.

    >>> without_secrets("cannot connect to amqp://shop:hunter2@queue/ token=abc")
    'cannot connect to amqp://shop:***@queue/ token=***'
    """
    return _MASKER.text(text)


def clean(result: CheckResult) -> CheckResult:
    """The result with what may be shown to anybody: bounded texts without secrets, and figures that JSON can hold."""
    figures = {
        cut(text_of(name), _MAX_NAME): _figure(name, value) for name, value in list(result.figures.items())[:_MAX_FIGURES]
    }
    # More than is shown is masked: a cut may hide that something is a secret, as the end of a URL does.
    reason = cut(without_secrets(text_of(result.reason, 4 * _MAX_REASON)), _MAX_REASON)
    return msgspec.structs.replace(result, reason=reason, figures=figures)


def _figure(name: object, value: object) -> Figure:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if abs(value) < 1 << 63 else float(value) if abs(value) < 1 << 1000 else None
    if isinstance(value, float):
        return round(value, 3) if isfinite(value) else None
    # Of a key such as `token`, the value alone does not show that it is a secret.
    masked: str = _MASKER.field(text_of(name, _MAX_NAME), text_of(value, _MAX_REASON))
    return cut(masked, _MAX_REASON)
