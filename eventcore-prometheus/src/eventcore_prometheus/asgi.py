"""Serves the metrics as an ASGI application, to mount in Starlette, FastAPI or Django."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias, final

from eventcore.serving import Response
from eventcore_prometheus.negotiation import time_limit
from eventcore_prometheus.scraping import NOT_RUNNING, Awaited, ScrapeError, not_allowed, present, unavailable

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]


@final
class ASGIApplication:
    """Serves the metrics under every path.

    An object and not a function: Starlette's ``Route`` takes functions for handlers of requests.

    Args:
        scraper: the scraper of the exporter. A scrape waits for the exporter to start.
        longest: the longest time that a scrape may take, in seconds.
    """

    def __init__(self, scraper: Awaited, longest: float) -> None:
        self._scraper = scraper
        self._longest = longest

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answer one request, or take part in the lifespan of a server whose only application this is."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            headers = _Headers(scope)
            response = await _respond(scope["method"], headers, self._scraper, self._longest)
            await _answer(response, send, with_body=scope["method"] != "HEAD")
        else:
            await receive()
            await send({"type": f"{scope['type']}.close"})


def mount(application: Any, path: str, metrics: ASGIApplication) -> None:
    """Add a route for the metrics to a FastAPI or Starlette application, before its other routes.

    Raises:
        TypeError: the application has no list of routes.
        ValueError: the path does not begin with ``/``.
    """
    if not path.startswith("/"):
        raise ValueError(f"path is {path!r}: expected one that begins with '/', for example '/metrics'")
    router = getattr(application, "router", application)
    routes: list[Any] | None = getattr(router, "routes", None)
    if type(routes) is not list:
        raise TypeError(
            f"mount takes a FastAPI or Starlette application, not {type(application).__name__}; "
            "serve exporter.asgi_app() or exporter.wsgi_app() at the path instead"
        )
    # Imported here because the plugin works without Starlette.
    from starlette.routing import Route

    # First, because a route for all paths, which an application may have, would take the request.
    routes.insert(0, Route(path, metrics, name="eventcore-metrics", include_in_schema=False))


class _Headers:
    def __init__(self, scope: _Message) -> None:
        self._pairs = scope.get("headers") or ()

    def get(self, name: bytes) -> str:
        """All values of a header, joined by commas: HTTP gives a repeated header the same meaning."""
        return ",".join(value.decode("latin-1") for key, value in self._pairs if key.lower() == name)


async def _respond(method: str, headers: _Headers, awaited: Awaited, longest: float) -> Response:
    if method not in ("GET", "HEAD"):
        return not_allowed()
    limit = time_limit(headers.get(b"x-prometheus-scrape-timeout-seconds"), longest)
    begun = time.monotonic()
    scraper = await awaited.wait_async(limit)
    if scraper is None:
        return unavailable(NOT_RUNNING)
    if not scraper.enter():
        return unavailable("too many scrapes at once")
    try:
        page = await scraper.fresh_async(limit - (time.monotonic() - begun), counts=method == "GET")
        # Not on the event loop: compressing takes long, and waits while another request compresses the same page.
        work = asyncio.to_thread(present, page, headers.get(b"accept"), headers.get(b"accept-encoding"))
        return await asyncio.wait_for(work, longest)
    except ScrapeError as error:
        return unavailable(str(error))
    except TimeoutError:
        return unavailable("no thread was free to compress the page")
    finally:
        scraper.leave()


async def _answer(response: Response, send: _Send, *, with_body: bool) -> None:
    headers = [(name.lower().encode(), value.encode()) for name, value in response.headers]
    headers.append((b"content-length", str(response.length).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    if with_body:
        for piece in response.body:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            # `send` may return without waiting for anything: yield, so that other tasks run between the pieces.
            await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _lifespan(receive: _Receive, send: _Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
