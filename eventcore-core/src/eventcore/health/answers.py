"""The answers of the health endpoints, for an ASGI server and for core's listener."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, final

import msgspec

from eventcore.ground import in_background
from eventcore.health.methods import HasHealth, monitor_of
from eventcore.health.page import PageData, page
from eventcore.health.values import Health

# Seconds for an answer. Kubernetes waits one second for a probe by default.
_READY_TIMEOUT: Final = 0.8
_HEALTH_TIMEOUT: Final = 2.0
_PATHS: Final = ("/livez", "/readyz", "/healthz", "/", "/data.json")
_JSON: Final = "application/json"
_MAX_PATH: Final = 80


@final
class Answer(msgspec.Struct, frozen=True):
    """An HTTP response.

    Attributes:
        status: for example 200.
        content_type: the type of ``body``.
        body: all of it.
        headers: further headers.
    """

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()

    def all_headers(self) -> tuple[tuple[str, str], ...]:
        """Every header but ``Content-Length``."""
        fixed = (("Content-Type", self.content_type), ("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))
        return (*fixed, *self.headers)


@final
class Answers:
    """Answers requests about one store: ``/livez``, ``/readyz``, ``/healthz``, and a page for people at ``/``."""

    def __init__(self, store: HasHealth) -> None:
        self._monitor = monitor_of(store)
        self._data = PageData(self._monitor)

    async def answer(self, method: str, path: str) -> Answer:
        """The answer, on an event loop."""
        if (refused := _refusal(method, path)) is not None:
            return refused
        if path == "/data.json":
            return await asyncio.wrap_future(in_background(self._page_data, "eventcore-health-page"))
        if (timeout := _timeout(path)) is None:
            return self._at_once(path)
        return _answer(path, await self._monitor.evaluate(timeout))

    def answer_in_thread(self, method: str, path: str) -> Answer:
        """The answer, in a thread that may wait, also while the event loop of the store is blocked."""
        if (refused := _refusal(method, path)) is not None:
            return refused
        if path == "/data.json":
            return self._page_data()
        if (timeout := _timeout(path)) is None:
            return self._at_once(path)
        return _answer(path, self._monitor.from_thread(timeout))

    def _at_once(self, path: str) -> Answer:
        # Whether the process makes progress has nothing to do with a server, so no server is asked.
        if path == "/livez":
            return _answer(path, self._monitor.kept())
        return Answer(200, "text/html; charset=utf-8", *page())

    def _page_data(self) -> Answer:
        return Answer(200, _JSON, self._data.current())


def _timeout(path: str) -> float | None:
    return {"/readyz": _READY_TIMEOUT, "/healthz": _HEALTH_TIMEOUT}.get(path)


def _answer(path: str, health: Health) -> Answer:
    passed: Mapping[str, bool] = {"/livez": health.live, "/readyz": health.ready}
    status = 200 if passed.get(path, health.status != "unhealthy") else 503
    if path == "/livez":
        loop = {name: check for name, check in health.checks.items() if name == "event_loop"}
        state = "healthy" if health.live else "unhealthy"
        return _json(status, {"status": state, "live": health.live, "store": health.store, "checks": loop})
    return _json(status, health)


def _refusal(method: str, path: str) -> Answer | None:
    if path not in _PATHS:
        known = ", ".join(_PATHS)
        return _json(404, {"error": f"nothing is at {path[:_MAX_PATH]!r}; expected one of {known}"})
    if method not in ("GET", "HEAD"):
        answer = _json(405, {"error": "expected GET or HEAD"})
        return msgspec.structs.replace(answer, headers=(("Allow", "GET, HEAD"),))
    return None


def _json(status: int, value: Any) -> Answer:
    return Answer(status, _JSON, msgspec.json.encode(value) + b"\n")
