"""Scrapes: run an export cycle, then answer with its page, or with the reason why there is none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import final

from eventcore.exporting import ExporterContext
from eventcore.serving import Response, plain
from eventcore_prometheus.negotiation import accepts_gzip, choose_format
from eventcore_prometheus.page import Page


class ScrapeError(Exception):
    """No cycle succeeded in time; the message says why."""


@final
@dataclass(frozen=True, slots=True)
class Scrapes:
    """Numbers of scrapes by outcome.

    Attributes:
        served: answered with the page of a new cycle.
        failed: answered with 503, because no cycle succeeded in time.
        refused: answered with 503 or by closing the connection, because too many scrapes or
            connections were open.
    """

    served: int = 0
    failed: int = 0
    refused: int = 0


class Scraper:
    """Runs export cycles for scrapes, and counts the scrapes. Safe to use from any thread.

    Args:
        context: the exporter's context.
        published_page: returns the page that was published last; ``None`` while there is none.
        max_scrapes: how many scrapes may run at the same time.
        source: returns the future of a page that begins now and takes at most the given seconds;
            by default the page of this process alone.
    """

    def __init__(
        self,
        context: ExporterContext,
        published_page: Callable[[], Page | None],
        max_scrapes: int,
        source: Callable[[float], Future[Page]] | None = None,
    ) -> None:
        self._context = context
        self._published_page = published_page
        self._source = source if source is not None else self._own_page
        self._slots = threading.BoundedSemaphore(max_scrapes)
        self._lock = threading.Lock()
        self._scrapes = Scrapes()

    @property
    def scrapes(self) -> Scrapes:
        """The numbers until now."""
        return self._scrapes

    def enter(self) -> bool:
        """Begin a scrape, to be ended with ``leave``; false, and counted as refused, when too many scrapes are running."""
        if self._slots.acquire(blocking=False):
            return True
        self.count(refused=1)
        return False

    def leave(self) -> None:
        """End a scrape that ``enter`` allowed."""
        self._slots.release()

    def fresh(self, timeout: float) -> Page:
        """The page of a cycle that begins after this call. Blocks the thread for at most ``timeout`` seconds.

        Raises:
            ScrapeError: the cycle failed, or did not end in time.
        """
        try:
            page = self._source(timeout).result(timeout)
        except Exception as error:
            raise self._failed(error, timeout) from error
        self.count(served=1)
        return page

    async def fresh_async(self, timeout: float) -> Page:
        """Like ``fresh``, without blocking the event loop."""
        try:
            # Shielded: when this scrape is cancelled because its client has gone, the future of the cycle must not be
            # cancelled, because other scrapes wait for it.
            page = await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._source(timeout))), timeout)
        except Exception as error:
            raise self._failed(error, timeout) from error
        self.count(served=1)
        return page

    def count(self, *, served: int = 0, failed: int = 0, refused: int = 0) -> None:
        """Add to the numbers of scrapes."""
        with self._lock:
            now = self._scrapes
            self._scrapes = Scrapes(now.served + served, now.failed + failed, now.refused + refused)

    def _own_page(self, timeout: float) -> Future[Page]:
        return page_of(self._context.export_now(timeout), self._published_page)

    def _failed(self, error: Exception, timeout: float) -> ScrapeError:
        self.count(failed=1)
        reason = str(error)
        if isinstance(error, TimeoutError):
            reason = f"no fresh values within {timeout:.3g} s{f': {reason}' if reason else ''}"
        self._context.logger.debug("a scrape failed: %s", reason)
        return ScrapeError(reason)


def page_of(cycle: Future[None], published_page: Callable[[], Page | None]) -> Future[Page]:
    """The future of the page that ``cycle`` publishes."""
    made: Future[Page] = Future()
    # So that nobody can cancel it: several scrapes may wait for it.
    made.set_running_or_notify_cancel()

    def ended(cycle: Future[None]) -> None:
        try:
            cycle.result()
            page = published_page()
            if page is None:
                raise RuntimeError("the cycle has published no page")
        except BaseException as error:  # noqa: BLE001  # the scrape raises it
            made.set_exception(error)
        else:
            made.set_result(page)

    cycle.add_done_callback(ended)
    return made


def present(page: Page, accept: str, accept_encoding: str) -> Response:
    """The response with a page, in the format and coding that the request asks for."""
    chosen = choose_format(accept)
    headers = [("Content-Type", chosen.content_type), ("Vary", "Accept, Accept-Encoding"), ("Cache-Control", "no-store")]
    if accepts_gzip(accept_encoding):
        parts = page.compressed(chosen.openmetrics)
        return Response(200, (*headers, ("Content-Encoding", "gzip")), parts, sum(map(len, parts)))
    return Response(200, tuple(headers), page.pieces(chosen.openmetrics), page.size(chosen.openmetrics))


def unavailable(reason: str) -> Response:
    """503: there is no page of a new cycle, and the page of an older one must not be served."""
    return plain(503, f"no metrics: {reason}", ("Retry-After", "1"))


def not_allowed() -> Response:
    """405: the method is neither GET nor HEAD."""
    return plain(405, "only GET and HEAD are allowed here", ("Allow", "GET, HEAD"))


def not_found(path: str) -> Response:
    """404: the metrics have another path."""
    return plain(404, f"nothing is here; the metrics are at {path}")


def index(path: str) -> Response:
    """The page at ``/``, for people: a link to the metrics."""
    body = f'<!doctype html><title>eventcore</title><h1>eventcore</h1><p><a href="{path}">Metrics</a></p>\n'.encode()
    return Response(200, (("Content-Type", "text/html; charset=utf-8"),), (body,), len(body))
