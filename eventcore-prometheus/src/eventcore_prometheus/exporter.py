"""The exporter: hooks that make the page, and the ways to get at it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, ClassVar, Final, final

from eventcore.exporting import CounterData, ExporterContext, GaugeData, HistogramData, hookimpl
from eventcore_prometheus.asgi import ASGIApplication, make_asgi_app
from eventcore_prometheus.collector import Registry, RegistryCollector
from eventcore_prometheus.naming import Names, check_renames
from eventcore_prometheus.negotiation import time_limit
from eventcore_prometheus.page import Page, PageBuilder
from eventcore_prometheus.scraping import (
    Response,
    ScrapeError,
    Scraper,
    Scrapes,
    index,
    not_allowed,
    not_found,
    present,
    unavailable,
)

if TYPE_CHECKING:
    from eventcore_prometheus.handler import Request
    from eventcore_prometheus.listener import Listener

_HIGHEST_PORT: Final = 65535


@final
class PrometheusExporter:
    """Lets Prometheus scrape what eventcore and the application measure.

    Each scrape asks for a fresh cycle; scrapes at the same time share one. Without a fresh page in time the answer is 503 with
    the reason: the numbers of an earlier cycle would be taken for new.

    Args:
        port: port to listen on; 0 lets the system choose, ``None`` listens nowhere (for ``registry`` and ``asgi_app``).
        host: address to listen on; the default can be reached from this machine only.
        path: path of the metrics.
        registry: a ``prometheus_client.CollectorRegistry`` that is to show the same values beside its own.
        rename: Prometheus names for instruments, by their names in code, instead of those that the rules give. The name of a
            counter gets ``_total`` where it lacks it.
        scrape_timeout: seconds that a scrape may take, also when the scraper announces more.
        max_requests: how many scrapes may be under way at once; more are answered with 503.

    Raises:
        ValueError: a setting does not fit, or two instruments would be renamed to one name.

    >>> exporter = PrometheusExporter(port=0, rename={"orders.shipped": "shop_orders_shipped_total"})
    >>> exporter.url is None   # it does not run yet
    True
    """

    interval: ClassVar[float | None] = None

    def __init__(
        self,
        port: int | None = 9464,
        host: str = "127.0.0.1",
        path: str = "/metrics",
        registry: Registry | None = None,
        rename: Mapping[str, str] | None = None,
        scrape_timeout: float = 10.0,
        max_requests: int = 8,
    ) -> None:
        _check(port, host, path, scrape_timeout, max_requests)
        self._renames = check_renames(rename or {})
        self._port = port
        self._host = host
        self._path = path
        self._registry = registry
        self._scrape_timeout = scrape_timeout
        self._max_requests = max_requests
        self._page: Page | None = None
        self._builder: PageBuilder | None = None
        self._scraper: Scraper | None = None
        self._listener: Listener | None = None
        self._collector: RegistryCollector | None = None

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port that it listens on now, ``None`` while it does not."""
        listener = self._listener
        return listener.address if listener is not None else None

    @property
    def url(self) -> str | None:
        """Where the metrics are, as seen from this machine; ``None`` while it does not listen."""
        address = self.address
        return self._url_at(*address) if address is not None else None

    @property
    def configured_url(self) -> str | None:
        """Where the metrics would be by the settings alone; ``None`` without a port, or with one that the system chooses."""
        return self._url_at(self._host, self._port) if self._port else None

    def _url_at(self, host: str, port: int) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # read here, not bound
        return f"http://{f'[{host}]' if ':' in host else host}:{port}{self._path}"

    @property
    def scrapes(self) -> Scrapes:
        """How many scrapes were served, failed and refused since the start."""
        scraper = self._scraper
        return scraper.scrapes if scraper is not None else Scrapes()

    def asgi_app(self) -> ASGIApplication:
        """An ASGI application with the metrics, for ``app.mount("/metrics", ...)``; it never blocks the event loop."""
        return make_asgi_app(lambda: self._scraper, self._scrape_timeout)

    @hookimpl
    def start(self, context: ExporterContext) -> None:
        """Listen, and show up in the registry."""
        logger = context.logger

        def on_collision(name: str, exposed: str, other: str) -> None:
            logger.warning(
                "%r is left out: its name %s is in use by %r; give one of them another name (setting 'rename')",
                name,
                exposed,
                other,
            )

        self._builder = PageBuilder(Names(self._renames), on_collision, keep_values=self._registry is not None)
        self._page = None
        scraper = Scraper(context, lambda: self._page, self._max_requests)
        if self._port is not None:
            self._listener = self._listen(self._port, scraper, logger)
            logger.info("metrics are served at %s", self.url)
        self._scraper = scraper
        if self._registry is not None:
            collector = RegistryCollector(lambda: self._scraper, self._scrape_timeout, logger)
            try:
                self._registry.register(collector)
            except BaseException:
                # The start is tried again, and the port must be free then.
                self.shutdown(0.0)
                raise
            self._collector = collector

    @hookimpl
    def export_counters(self, counters: Sequence[CounterData]) -> None:
        """Add a chunk of totals to the page."""
        self._building().counters(counters)

    @hookimpl
    def export_gauges(self, gauges: Sequence[GaugeData]) -> None:
        """Add a chunk of current values to the page."""
        self._building().gauges(gauges)

    @hookimpl
    def export_histograms(self, histograms: Sequence[HistogramData]) -> None:
        """Add a chunk of distributions to the page."""
        self._building().histograms(histograms)

    @hookimpl
    def flush(self) -> None:
        """Publish the page, by one assignment."""
        self._page = self._building().finish()

    @hookimpl
    def shutdown(self, timeout: float) -> None:
        """Let scrapes that are under way end, and go."""
        collector, self._collector = self._collector, None
        if collector is not None and self._registry is not None:
            with contextlib.suppress(KeyError):  # the application has taken it out itself
                self._registry.unregister(collector)
        listener, self._listener = self._listener, None
        if listener is not None:
            # Some of the time is left for what comes after this exporter.
            listener.close(timeout * 0.8)
        self._scraper = None

    def _building(self) -> PageBuilder:
        if self._builder is None:
            raise RuntimeError("the exporter has not been started")
        return self._builder

    def _listen(self, port: int, scraper: Scraper, logger: logging.Logger) -> Listener:
        # Here, because importing the plugin must not import an HTTP server.
        from eventcore_prometheus.listener import Listener

        return Listener(
            self._host,
            port,
            lambda request: self._respond(request, scraper),
            requests=self._max_requests,
            refused=lambda: scraper.count(refused=1),
            logger=logger,
        )

    def _respond(self, request: Request, scraper: Scraper) -> Response:
        if request.method not in ("GET", "HEAD"):
            return not_allowed()
        if request.path != self._path:
            return index(self._path) if request.path == "/" else not_found(self._path)
        headers = request.headers
        if not scraper.enter():
            return unavailable("too many scrapes at once")
        try:
            page = scraper.fresh(time_limit(headers.get("X-Prometheus-Scrape-Timeout-Seconds", ""), self._scrape_timeout))
            return present(page, ",".join(headers.get_all("Accept", ())), ",".join(headers.get_all("Accept-Encoding", ())))
        except ScrapeError as error:
            return unavailable(str(error))
        finally:
            scraper.leave()


def _check(port: int | None, host: str, path: str, scrape_timeout: float, max_requests: int) -> None:
    problems: list[str] = []
    if port is not None and not 0 <= port <= _HIGHEST_PORT:
        problems.append(f"port is {port}: expected 0 to {_HIGHEST_PORT}, or None to listen nowhere")
    if any(character.isspace() for character in host):
        problems.append(f"host is {host!r}: expected a name or an address, for example '127.0.0.1'")
    if (
        not path.startswith("/")
        or not path.isascii()
        or not path.isprintable()
        or any(character in path for character in ' ?#"<>&%')
    ):
        problems.append(
            f"path is {path!r}: expected one that begins with '/' and has neither spaces, '?', '#', quotes nor escapes"
        )
    if not (isfinite(scrape_timeout) and scrape_timeout > 0):
        problems.append(f"scrape_timeout is {scrape_timeout}: expected seconds, more than 0")
    if max_requests < 1:
        problems.append(f"max_requests is {max_requests}: expected 1 or more")
    if problems:
        raise ValueError("; ".join(problems))
