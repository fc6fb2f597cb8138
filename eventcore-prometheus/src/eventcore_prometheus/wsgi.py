"""Serves the metrics as a WSGI application, for Flask, Django and every other WSGI framework."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, TypeAlias, final

from eventcore.serving import Response
from eventcore_prometheus.negotiation import time_limit
from eventcore_prometheus.scraping import NOT_RUNNING, ScrapeError, Scraper, not_allowed, present, unavailable

Environ: TypeAlias = dict[str, Any]
StartResponse: TypeAlias = Callable[..., Any]


@final
class WSGIApplication:
    """Serves the metrics under every path. A scrape blocks the thread of its request until the page is there.

    Args:
        current_scraper: returns the scraper of the exporter, or ``None`` while the exporter does
            not run.
        longest: the longest time that a scrape may take, in seconds.
    """

    def __init__(self, current_scraper: Callable[[], Scraper | None], longest: float) -> None:
        self._current_scraper = current_scraper
        self._longest = longest

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, as WSGI asks for it (PEP 3333)."""
        method = environ.get("REQUEST_METHOD", "GET")
        response = self._respond(method, environ)
        headers = [*response.headers, ("Content-Length", str(response.length))]
        start_response(f"{response.status} {HTTPStatus(response.status).phrase}", headers)
        return () if method == "HEAD" else response.body

    def _respond(self, method: str, environ: Environ) -> Response:
        scraper = self._current_scraper()
        if method not in ("GET", "HEAD"):
            return not_allowed()
        if scraper is None:
            return unavailable(NOT_RUNNING)
        if not scraper.enter():
            return unavailable("too many scrapes at once")
        try:
            page = scraper.fresh(time_limit(environ.get("HTTP_X_PROMETHEUS_SCRAPE_TIMEOUT_SECONDS", ""), self._longest))
            return present(page, environ.get("HTTP_ACCEPT", ""), environ.get("HTTP_ACCEPT_ENCODING", ""))
        except ScrapeError as error:
            return unavailable(str(error))
        finally:
            scraper.leave()
