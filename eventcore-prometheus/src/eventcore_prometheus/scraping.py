"""A scrape, whoever asks for it: wait for a fresh cycle within a limit, answer with its page or with the reason why not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import final

from eventcore.exporting import ExporterContext
from eventcore_prometheus.negotiation import accepts_gzip, choose_format
from eventcore_prometheus.page import Page


class ScrapeError(Exception):
    """There is no fresh page; the message says why."""


@final
@dataclass(frozen=True, slots=True)
class Scrapes:
    """How many scrapes ended how.

    Attributes:
        served: answered with a fresh page.
        failed: answered with 503 because there was no fresh page in time.
        refused: answered with 503, or not at all, because too many were under way.
    """

    served: int = 0
    failed: int = 0
    refused: int = 0


@final
@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response; ``length`` is the number of bytes of ``body``."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: Iterable[bytes]
    length: int


class Scraper:
    """Asks for fresh pages and keeps count.

    Args:
        context: the exporter's context.
        published: gives the page that was published last, ``None`` while there is none.
        limit: how many scrapes may be under way at once.
    """

    def __init__(self, context: ExporterContext, published: Callable[[], Page | None], limit: int) -> None:
        self._context = context
        self._published = published
        self._places = threading.BoundedSemaphore(limit)
        self._lock = threading.Lock()
        self._scrapes = Scrapes()

    @property
    def scrapes(self) -> Scrapes:
        """The counts until now."""
        return self._scrapes

    def enter(self) -> bool:
        """Take a place, to be given back with ``leave``; false when too many scrapes are under way."""
        if self._places.acquire(blocking=False):
            return True
        self.count(refused=1)
        return False

    def leave(self) -> None:
        """Give the place back."""
        self._places.release()

    def fresh(self, limit: float) -> Page:
        """The page of a cycle that begins now or later, within ``limit`` seconds.

        Raises:
            ScrapeError: the cycle failed or was late.
        """
        try:
            self._begin(limit).result(limit)
        except Exception as error:
            raise self._failed(error, limit) from error
        return self._served()

    async def fresh_async(self, limit: float) -> Page:
        """The same without blocking the event loop."""
        try:
            # Shielded, because a client that goes away must not withdraw what others wait for too.
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._begin(limit))), limit)
        except Exception as error:
            raise self._failed(error, limit) from error
        return self._served()

    def count(self, *, served: int = 0, failed: int = 0, refused: int = 0) -> None:
        """Add to the counts."""
        with self._lock:
            now = self._scrapes
            self._scrapes = Scrapes(now.served + served, now.failed + failed, now.refused + refused)

    def _begin(self, limit: float) -> Future[None]:
        return self._context.export_now(limit)

    def _served(self) -> Page:
        page = self._published()
        if page is None:
            raise self._failed(RuntimeError("the cycle has published no page"), 0)
        self.count(served=1)
        return page

    def _failed(self, error: Exception, limit: float) -> ScrapeError:
        self.count(failed=1)
        reason = str(error)
        if isinstance(error, TimeoutError):
            reason = f"no fresh values within {limit:.3g} s{f': {reason}' if reason else ''}"
        self._context.logger.debug("a scrape failed: %s", reason)
        return ScrapeError(reason)


def present(page: Page, accept: str, accept_encoding: str) -> Response:
    """The response that carries a page in the format and coding asked for."""
    chosen = choose_format(accept)
    headers = [("Content-Type", chosen.content_type), ("Vary", "Accept, Accept-Encoding"), ("Cache-Control", "no-store")]
    if accepts_gzip(accept_encoding):
        parts = page.compressed(chosen.openmetrics)
        return Response(200, (*headers, ("Content-Encoding", "gzip")), parts, sum(map(len, parts)))
    return Response(200, tuple(headers), page.pieces(chosen.openmetrics), page.size(chosen.openmetrics))


def unavailable(reason: str) -> Response:
    """There are no fresh numbers, and old ones would be taken for new."""
    return _plain(503, f"no metrics: {reason}\n", ("Retry-After", "1"))


def not_allowed() -> Response:
    """The method is neither GET nor HEAD."""
    return _plain(405, "only GET and HEAD are allowed here\n", ("Allow", "GET, HEAD"))


def not_found(path: str) -> Response:
    """The path is another one than that of the metrics."""
    return _plain(404, f"nothing is here; the metrics are at {path}\n")


def index(path: str) -> Response:
    """The page at the root, for people."""
    body = f'<!doctype html><title>eventcore</title><h1>eventcore</h1><p><a href="{path}">Metrics</a></p>\n'.encode()
    return Response(200, (("Content-Type", "text/html; charset=utf-8"),), (body,), len(body))


def _plain(status: int, text: str, *headers: tuple[str, str]) -> Response:
    body = text.encode(errors="replace")
    return Response(status, (("Content-Type", "text/plain; charset=utf-8"), *headers), (body,), len(body))
