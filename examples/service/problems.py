"""Errors of eventcore as HTTP answers (RFC 9457, problem details)."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from eventcore.errors import (
    BusinessRuleViolation,
    CommandTimeout,
    ConcurrencyConflict,
    EventCoreError,
    IdempotencyKeyReused,
    InvalidInput,
    ProjectionTimeout,
    StoreClosed,
    StoreDraining,
    StoreUnavailable,
)

# What a client can do decides the status: correct the request (4xx), or send it again, in a moment (503) or elsewhere.
_STATUSES: Final[dict[type[EventCoreError], tuple[int, str]]] = {
    BusinessRuleViolation: (409, "refused"),
    IdempotencyKeyReused: (422, "idempotency-key-reused"),
    InvalidInput: (422, "invalid"),
    ConcurrencyConflict: (503, "conflict"),
    CommandTimeout: (504, "timeout"),
    ProjectionTimeout: (504, "not-yet-visible"),
    StoreDraining: (503, "draining"),
    StoreUnavailable: (503, "unavailable"),
    StoreClosed: (503, "closed"),
}
# Their texts are for the client. Those of other errors name hosts and databases, and stay in the log.
_FOR_CLIENTS: Final = (BusinessRuleViolation, IdempotencyKeyReused, InvalidInput)


def answer_problems(app: FastAPI) -> None:
    """Let ``app`` answer each error of eventcore with its own status."""
    for kind in _STATUSES:
        app.add_exception_handler(kind, _answer)


async def _answer(_: Request, error: Exception) -> JSONResponse:
    # The nearest class: a draining store is also one that is unavailable.
    kind = next(each for each in type(error).__mro__ if each in _STATUSES)
    status, problem = _STATUSES[kind]
    body: dict[str, object] = {"type": f"urn:bank:{problem}", "title": problem, "status": status}
    if isinstance(error, _FOR_CLIENTS):
        body["detail"] = str(error)
    # Whether the same request may be sent again without an idempotency key.
    body["may_have_committed"] = bool(getattr(error, "may_have_committed", False))
    headers = {"Retry-After": "1"} if status == 503 else {}
    return JSONResponse(body, status, headers, media_type="application/problem+json")
