"""The plugin: its hooks build a page in each cycle, and a listener, a registry and an ASGI application serve it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import ClassVar, Final, final

from eventcore.exporting import CounterData, ExporterContext, GaugeData, HistogramData, Secret, hookimpl
from eventcore.serving import Access, Limits, Listener, Request, Response
from eventcore_prometheus.asgi import ASGIApplication, make_asgi_app
from eventcore_prometheus.collector import Registry, RegistryCollector
from eventcore_prometheus.naming import Names, check_renames
from eventcore_prometheus.negotiation import time_limit
from eventcore_prometheus.page import Page, PageBuilder
from eventcore_prometheus.scraping import (
    ScrapeError,
    Scraper,
    Scrapes,
    index,
    not_allowed,
    not_found,
    present,
    unavailable,
)

_HIGHEST_PORT: Final = 65535
_CONNECTIONS_PER_SCRAPE: Final = 4


@final
@dataclass(frozen=True, slots=True)
class _Settings:
    """The arguments of the exporter's constructor, checked; ``renames`` is the whole table of renames."""

    port: int | None
    host: str
    path: str
    registry: Registry | None
    renames: Mapping[str, str]
    scrape_timeout: float
    max_requests: int
    access: Access

    def __post_init__(self) -> None:
        problems: list[str] = []
        if self.port is not None and not 0 <= self.port <= _HIGHEST_PORT:
            problems.append(f"port is {self.port}: expected 0 to {_HIGHEST_PORT}, or None to listen nowhere")
        if any(character.isspace() for character in self.host):
            problems.append(f"host is {self.host!r}: expected a name or an address, for example '127.0.0.1'")
        if not (
            self.path.startswith("/")
            and self.path.isascii()
            and self.path.isprintable()
            and set(self.path).isdisjoint(' ?#"<>&%')
        ):
            problems.append(
                f"path is {self.path!r}: expected one that begins with '/' and only printable ASCII, without any of ' ?#\"<>&%'"
            )
        if not (isfinite(self.scrape_timeout) and self.scrape_timeout > 0):
            problems.append(f"scrape_timeout is {self.scrape_timeout}: expected seconds, more than 0")
        if self.max_requests < 1:
            problems.append(f"max_requests is {self.max_requests}: expected 1 or more")
        if problems:
            raise ValueError("; ".join(problems))

    def url_at(self, host: str, port: int) -> str:
        """The URL of the metrics at an address that the exporter listens on, as seen from this machine."""
        if host.startswith("unix:"):
            return host
        host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # not bound here
        scheme = "http" if self.access.certificate is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{self.path}"


@final
class PrometheusExporter:
    """Serves the metrics of eventcore and of the application for Prometheus to scrape.

    Each scrape starts an export cycle; scrapes at the same time share one. If the cycle does not
    succeed in time, the response is 503 with the reason, and never the page of an earlier cycle:
    Prometheus would store its values with the time of this scrape.

    Args:
        port: the port to listen on, from 1 to 65535; 0 for a free port that the system chooses;
            ``None`` for no listener (use ``registry`` or ``asgi_app`` then).
        host: the name or address to listen on; a name that has several addresses, as ``localhost``
            has, is bound at all of them; empty for all addresses of this machine; ``unix:`` and a
            path for a Unix socket. The default accepts connections from this machine only.
        path: the path of the metrics, beginning with ``/``.
        registry: a ``prometheus_client.CollectorRegistry`` to which the metrics are added.
        rename: Prometheus names by the names of instruments in code. ``_total`` is appended to the
            name of a counter that lacks it.
        scrape_timeout: the longest time that a scrape may take, in seconds, more than 0, also if
            the scraper allows more.
        max_requests: how many scrapes may run at the same time, 1 or more. Others are answered with
            503.
        tls_certificate: path of a PEM file with the server's certificate and those that signed it:
            the listener then speaks HTTPS only. It is read again when it changes, and so are
            ``tls_key`` and ``tls_client_ca``.
        tls_key: path of a PEM file with the private key; not needed if ``tls_certificate`` has it.
        tls_key_password: the password of an encrypted private key.
        tls_client_ca: path of a PEM file with certificates; only clients with a certificate that
            one of them has signed are accepted.
        users: hashed passwords by the names of users, for basic authentication.
            ``eventcore.serving.hash_password`` makes the hashes.
        tokens: bearer tokens, at least 16 characters each. All of them are accepted, so that a new
            one can be distributed before the old one is removed.

    Raises:
        ValueError: a setting has a wrong value, or two instruments would get the same name.

    >>> exporter = PrometheusExporter(port=0, rename={"orders.shipped": "shop_orders_shipped_total"})
    >>> exporter.url is None   # not started
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
        tls_certificate: str | None = None,
        tls_key: str | None = None,
        tls_key_password: Secret | None = None,
        tls_client_ca: str | None = None,
        users: Mapping[str, Secret] | None = None,
        tokens: Sequence[Secret] = (),
    ) -> None:
        self._settings = _Settings(
            port=port,
            host=host,
            path=path,
            registry=registry,
            renames=check_renames(rename or {}),
            scrape_timeout=scrape_timeout,
            max_requests=max_requests,
            access=Access(
                certificate=tls_certificate,
                key=tls_key,
                key_password=tls_key_password,
                client_ca=tls_client_ca,
                users=users or {},
                tokens=tokens,
            ),
        )
        # Hooks assign all of these in the pipeline's threads. Threads and tasks that serve scrapes only read them.
        self._page: Page | None = None
        self._builder: PageBuilder | None = None
        self._scraper: Scraper | None = None
        self._listener: Listener | None = None
        self._collector: RegistryCollector | None = None

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port of the listener; ``None`` while there is none."""
        listener = self._listener
        return listener.address if listener is not None else None

    @property
    def url(self) -> str | None:
        """The URL of the metrics on this machine; ``None`` while there is no listener."""
        address = self.address
        return self._settings.url_at(*address) if address is not None else None

    @property
    def configured_url(self) -> str | None:
        """The URL of the metrics by the settings alone, also before the start; ``None`` when ``port`` is ``None`` or 0."""
        settings = self._settings
        return settings.url_at(settings.host, settings.port) if settings.port else None

    @property
    def scrapes(self) -> Scrapes:
        """The number of scrapes that were served, failed and refused since the start."""
        scraper = self._scraper
        return scraper.scrapes if scraper is not None else Scrapes()

    def asgi_app(self) -> ASGIApplication:
        """An ASGI application that serves the metrics, for ``app.mount("/metrics", ...)``. It does not block the event loop."""
        return make_asgi_app(lambda: self._scraper, self._settings.scrape_timeout)

    @hookimpl
    def start(self, context: ExporterContext) -> None:
        """Start the listener, and add the metrics to the registry.

        Raises:
            OSError: the listener cannot use the address; the message says why.
        """
        settings, logger = self._settings, context.logger

        def on_collision(name: str, exposed: str, owner: str) -> None:
            context.report_hidden(
                name, f"its name {exposed} is in use by {owner!r}; give one of them another name (setting 'rename')"
            )

        self._builder = PageBuilder(Names(settings.renames), on_collision, keep_values=settings.registry is not None)
        self._page = None
        scraper = Scraper(context, lambda: self._page, settings.max_requests)
        if settings.port is not None:
            listener = self._listener = self._listen(settings.port, scraper, logger)
            # The child would otherwise keep the port: scrapes would hang there, and a restart would find it taken.
            context.on_fork(after_in_child=listener.close_in_child)
            logger.info("metrics are served at %s", self.url)
        self._scraper = scraper
        if settings.registry is not None:
            collector = RegistryCollector(lambda: self._scraper, settings.scrape_timeout, logger)
            try:
                settings.registry.register(collector)
            except BaseException:
                # Core calls `start` again later: free the port for that call.
                self.shutdown(0.0)
                raise
            self._collector = collector

    @hookimpl
    def begin(self) -> None:
        """Begin a page; drop what a failed cycle has left of its own."""
        self._building().begin()

    @hookimpl
    def export_counters(self, counters: Sequence[CounterData]) -> None:
        """Add a chunk of counters to the page."""
        self._building().counters(counters)

    @hookimpl
    def export_gauges(self, gauges: Sequence[GaugeData]) -> None:
        """Add a chunk of gauges to the page."""
        self._building().gauges(gauges)

    @hookimpl
    def export_histograms(self, histograms: Sequence[HistogramData]) -> None:
        """Add a chunk of histograms to the page."""
        self._building().histograms(histograms)

    @hookimpl
    def flush(self) -> None:
        """Publish the page. One assignment, so that other threads see the old page or the new one."""
        self._page = self._building().finish()

    @hookimpl
    def shutdown(self, timeout: float) -> None:
        """Let running scrapes end within ``timeout`` seconds, then close the listener and leave the registry."""
        collector, self._collector = self._collector, None
        if collector is not None and self._settings.registry is not None:
            with contextlib.suppress(KeyError):  # the application has already removed it
                self._settings.registry.unregister(collector)
        listener, self._listener = self._listener, None
        if listener is not None:
            # Keep a part of the time for core, which reports after this hook has returned.
            listener.close(timeout * 0.8)
        self._scraper = None

    def _building(self) -> PageBuilder:
        if self._builder is None:
            raise RuntimeError("the Prometheus exporter was not started: call start() before any export hook")
        return self._builder

    def _listen(self, port: int, scraper: Scraper, logger: logging.Logger) -> Listener:
        return Listener(
            self._settings.host,
            port,
            lambda request: self._respond(request, scraper),
            access=self._settings.access,
            limits=Limits(connections=self._settings.max_requests * _CONNECTIONS_PER_SCRAPE),
            on_refused=lambda: scraper.count(refused=1),
            logger=logger,
            name="eventcore-prometheus",
        )

    def _respond(self, request: Request, scraper: Scraper) -> Response:
        settings, headers = self._settings, request.headers
        if request.method not in ("GET", "HEAD"):
            return not_allowed()
        if request.path != settings.path:
            return index(settings.path) if request.path == "/" else not_found(settings.path)
        if not scraper.enter():
            return unavailable("too many scrapes at once")
        try:
            page = scraper.fresh(time_limit(headers.get("X-Prometheus-Scrape-Timeout-Seconds"), settings.scrape_timeout))
            return present(page, headers.get("Accept"), headers.get("Accept-Encoding"))
        except ScrapeError as error:
            return unavailable(str(error))
        finally:
            scraper.leave()
