"""Serves the metrics as a WSGI application, for Flask, Django and every other WSGI framework."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, TypeAlias, final

from eventcore.serving import Response
from eventcore_prometheus.negotiation import time_limit
from eventcore_prometheus.scraping import NOT_RUNNING, Awaited, ScrapeError, not_allowed, present, unavailable

Environ: TypeAlias = dict[str, Any]
StartResponse: TypeAlias = Callable[..., Any]


@final
class WSGIApplication:
    """Serves the metrics under every path. A scrape blocks the thread of its request until the page is there.

    Args:
        scraper: the scraper of the exporter. A scrape waits for the exporter to start.
        longest: the longest time that a scrape may take, in seconds.
    """

    def __init__(self, scraper: Awaited, longest: float) -> None:
        self._scraper = scraper
        self._longest = longest

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, as WSGI asks for it (PEP 3333)."""
        method = environ.get("REQUEST_METHOD", "GET")
        response = self._respond(method, environ)
        headers = [*response.headers, ("Content-Length", str(response.length))]
        start_response(f"{response.status} {HTTPStatus(response.status).phrase}", headers)
        return () if method == "HEAD" else response.body

    def _respond(self, method: str, environ: Environ) -> Response:
        if method not in ("GET", "HEAD"):
            return not_allowed()
        limit = time_limit(environ.get("HTTP_X_PROMETHEUS_SCRAPE_TIMEOUT_SECONDS", ""), self._longest)
        begun = time.monotonic()
        scraper = self._scraper.wait(limit)
        if scraper is None:
            return unavailable(NOT_RUNNING)
        if not scraper.enter():
            return unavailable("too many scrapes at once")
        try:
            page = scraper.fresh(limit - (time.monotonic() - begun), counts=method == "GET")
            return present(page, environ.get("HTTP_ACCEPT", ""), environ.get("HTTP_ACCEPT_ENCODING", ""))
        except ScrapeError as error:
            return unavailable(str(error))
        finally:
            scraper.leave()
