"""Scrapes: run an export cycle, then answer with its page, or with the reason why there is none."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, final

from eventcore.exporting import ExporterContext
from eventcore.serving import Response, plain
from eventcore_prometheus.negotiation import TEXT, accepts_gzip, choose_format
from eventcore_prometheus.page import Page

DURATIONS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Boundaries of the buckets for the time that scrapes take, in seconds."""

NOT_RUNNING: Final = (
    "the exporter does not run; register it with a store or a Telemetry, or look into the log for why it stopped"
)
"""Why an application that is mounted has no metrics."""

# A scraper that announces less than so many seconds is refused when that is too short, and its failure is no fault of ours.
_IMPATIENT: Final = 0.25
# Seconds that the pages of all workers get at least, whatever a scraper announces.
_LEAST_GATHERING: Final = 1.0
# Seconds that a scrape of a mounted application waits for the exporter to start: registered with an open store, it starts
# beside the application, whose first scrape may come sooner.
_LONGEST_START: Final = 5.0
_LOOK_PERIOD: Final = 0.02
# One that announces less than this many seconds gets no cycle at all.
_HOPELESS: Final = 0.01


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
            connections were open, or because the scraper announced a timeout of less than a quarter
            of a second that was too short.
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
        source: returns the future of the page of all workers, which begins now and takes at most
            the given seconds; ``None`` when this process answers for itself.
        longest: seconds that a cycle may take, whatever a scraper announces.
    """

    def __init__(
        self,
        context: ExporterContext,
        published_page: Callable[[], Page | None],
        max_scrapes: int,
        source: Callable[[float], Future[Page] | None] = lambda _: None,
        longest: float = 10.0,
    ) -> None:
        self._context = context
        self._published_page = published_page
        self._source = source
        self._longest = longest
        self._slots = threading.BoundedSemaphore(max_scrapes)
        self._lock = threading.Lock()
        self._scrapes = Scrapes()
        self._durations = [0] * (len(DURATIONS) + 1)
        self._seconds = 0.0

    @property
    def durations(self) -> tuple[list[int], float]:
        """The served scrapes by the buckets of their durations, and the sum of these in seconds."""
        with self._lock:
            return self._durations.copy(), self._seconds

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

    def fresh(self, timeout: float, *, alone: bool = False, counts: bool = True) -> Page:
        """The page of a cycle that begins after this call. Blocks the thread for at most ``timeout`` seconds.

        With ``alone``, it is the page of this process without those of other workers. ``counts`` is false for a request that
        takes no values, HEAD: monitors of web servers send it, and it is no scrape.

        Raises:
            ScrapeError: the cycle failed, or did not end in time.
        """
        begun = time.monotonic()
        try:
            page = self._begin(timeout, alone=alone).result(timeout)
        except Exception as error:
            raise self._failed(error, timeout, counts=counts) from error
        if counts:
            self._served(begun)
        return page

    async def fresh_async(self, timeout: float, *, counts: bool = True) -> Page:
        """Like ``fresh``, without blocking the event loop."""
        begun = time.monotonic()
        try:
            # Shielded: when this scrape is cancelled because its client has gone, the future of the cycle must not be
            # cancelled, because other scrapes wait for it.
            page = await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._begin(timeout))), timeout)
        except Exception as error:
            raise self._failed(error, timeout, counts=counts) from error
        if counts:
            self._served(begun)
        return page

    def _served(self, begun: float) -> None:
        seconds = time.monotonic() - begun
        self.count(served=1)
        with self._lock:
            self._durations[bisect_left(DURATIONS, seconds)] += 1
            self._seconds += seconds

    def begin(self) -> None:
        """Begin a cycle of which nobody takes the page. Any thread, but no hook."""
        # The exporter may be shut down already.
        with contextlib.suppress(RuntimeError):
            self._context.export_now(self._longest)

    def count(self, *, served: int = 0, failed: int = 0, refused: int = 0) -> None:
        """Add to the numbers of scrapes."""
        with self._lock:
            now = self._scrapes
            self._scrapes = Scrapes(now.served + served, now.failed + failed, now.refused + refused)

    def _begin(self, timeout: float, *, alone: bool = False) -> Future[Page]:
        if timeout < _HOPELESS:
            raise TimeoutError("the scraper announced too short a timeout")
        # A cycle takes the time that it needs, whatever a scraper announces: an impatient one would make the exporter failing.
        whole = self._source(max(timeout, _LEAST_GATHERING)) if not alone else None
        if whole is not None:
            return whole
        return page_of(self._context.export_now(max(timeout, self._longest)), self._published_page)

    def _failed(self, error: Exception, timeout: float, *, counts: bool) -> ScrapeError:
        if counts and isinstance(error, TimeoutError) and timeout < min(_IMPATIENT, self._longest):
            self.count(refused=1)
        elif counts:
            self.count(failed=1)
        reason = str(error)
        if isinstance(error, TimeoutError):
            reason = f"no fresh values within {timeout:.3g} s{f': {reason}' if reason else ''}"
        self._context.logger.debug("a scrape failed: %s", reason)
        return ScrapeError(reason)


@final
class Awaited:
    """The scraper of an exporter that may be about to start.

    Args:
        current: returns the scraper, or ``None`` while the exporter does not run.
        may_start: returns whether it may be starting: false once it has stopped or has failed to start.
    """

    def __init__(self, current: Callable[[], Scraper | None], may_start: Callable[[], bool]) -> None:
        self._current = current
        self._may_start = may_start

    def wait(self, timeout: float) -> Scraper | None:
        """The scraper, within ``timeout`` seconds; ``None`` when there is none. Blocks the thread."""
        until = _start_limit(timeout)
        while (scraper := self._current()) is None and self._may_start() and time.monotonic() < until:
            time.sleep(_LOOK_PERIOD)
        return scraper

    async def wait_async(self, timeout: float) -> Scraper | None:
        """Like ``wait``, without blocking the event loop."""
        until = _start_limit(timeout)
        # No event: it would belong to one event loop, and a forked child would inherit it.
        while (scraper := self._current()) is None and self._may_start() and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_PERIOD)
        return scraper


def _start_limit(timeout: float) -> float:
    return time.monotonic() + min(timeout, _LONGEST_START)


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
    chosen = choose_format(accept) if page.openmetrics else TEXT
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
