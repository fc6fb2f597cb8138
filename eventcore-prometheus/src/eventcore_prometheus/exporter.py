"""The plugin: its hooks build a page in each cycle, and a listener, a registry and an ASGI application serve it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, ClassVar, Final, Literal, final

from eventcore.exporting import CounterData, ExporterContext, GaugeData, HistogramData, Secret, hookimpl
from eventcore.serving import Access, Limits, Listener, Request, Response
from eventcore_prometheus.about import About
from eventcore_prometheus.asgi import ASGIApplication, mount
from eventcore_prometheus.collector import Registry, RegistryCollector, Source
from eventcore_prometheus.naming import Names, check_renames
from eventcore_prometheus.negotiation import time_limit
from eventcore_prometheus.page import Page, PageBuilder
from eventcore_prometheus.scraping import (
    Awaited,
    ScrapeError,
    Scraper,
    Scrapes,
    index,
    not_allowed,
    not_found,
    present,
    unavailable,
)
from eventcore_prometheus.wsgi import WSGIApplication

if TYPE_CHECKING:
    from eventcore_prometheus.workers import Workers

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
    workers: Literal["auto", "off"]
    process_metrics: bool

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
        if self.workers not in ("auto", "off"):
            problems.append(f"workers is {self.workers!r}: expected 'auto' or 'off'")
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
        workers: ``auto``: the process that holds the port answers for all processes of the same
            service on this host, and every series has the label ``worker``, a small number of its
            process. The same service means: the same user, port, ``service_name``, ``host``, users,
            tokens and certificates; without a name, the same parent. Not with ``port=0``. ``off``:
            each process answers for itself, and only one of them can have the port.
        process_metrics: whether the page has ``process_*`` and ``python_*``. In a ``registry``,
            those that the application exports itself are left out.

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
        workers: Literal["auto", "off"] = "auto",
        process_metrics: bool = True,
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
            workers=workers,
            process_metrics=process_metrics,
        )
        # Hooks assign all of these in the pipeline's threads. Threads and tasks that serve scrapes only read them.
        self._published: tuple[int | None, Page] | None = None
        self._builder: PageBuilder | None = None
        self._scraper: Scraper | None = None
        self._may_start = True
        self._listener: Listener | None = None
        self._workers: Workers | None = None
        self._source: Source | None = None
        self._about: About | None = None
        # Core checks these names when it knows all of its own.
        self.instrument_names = {"rename": tuple(rename or ())}
        # One last cycle: it gives a registry the values of the end, for a push afterwards, and the process that holds the port
        # those of a worker that ends.
        self.final_cycle = registry is not None or (workers == "auto" and port != 0)

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port of the listener, or of that of the process that holds the port; ``None`` while there is none."""
        listener, workers = self._listener, self._workers
        if workers is not None:
            return workers.address
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
        """An ASGI application that serves the metrics, for example as ``Route("/metrics", exporter.asgi_app())``.

        It does not block the event loop.
        """
        return ASGIApplication(Awaited(lambda: self._scraper, lambda: self._may_start), self._settings.scrape_timeout)

    def wsgi_app(self) -> WSGIApplication:
        """A WSGI application that serves the metrics. A scrape blocks the thread of its request until the page is there."""
        return WSGIApplication(Awaited(lambda: self._scraper, lambda: self._may_start), self._settings.scrape_timeout)

    def mount(self, app: object, path: str = "/metrics") -> None:
        """Let a FastAPI or Starlette application answer scrapes at exactly ``path``, without a redirect.

        Args:
            app: the application.
            path: where, beginning with ``/``.

        Raises:
            TypeError: ``app`` is no application of FastAPI or Starlette.
            ValueError: ``path`` does not begin with ``/``.
        """
        mount(app, path, self.asgi_app())

    @hookimpl
    def start(self, context: ExporterContext) -> None:
        """Start the listener, and add the metrics to the registry.

        Raises:
            OSError: the listener cannot use the address; the message says why.
        """
        settings, logger = self._settings, context.logger
        self._may_start = True

        builder = PageBuilder(Names(settings.renames), context.report_hidden, keep_values=settings.registry is not None)
        self._builder = builder
        self._published = None
        scraper = Scraper(context, self._newest_page, settings.max_requests, self._gather, settings.scrape_timeout)
        self._about = About(
            context.name, context.resource, scraper, lambda: builder.hidden, logger, process_metrics=settings.process_metrics
        )
        self._workers = self._join(context, scraper)
        if self._workers is not None:
            context.on_fork(after_in_child=self._workers.close_in_child)
        elif settings.port is not None:
            listener = self._listener = self._listen(settings.port, scraper, logger)
            # The child would otherwise keep the port: scrapes would hang there, and a restart would find it taken.
            context.on_fork(after_in_child=listener.close_in_child)
        if self.url is not None:
            logger.info("metrics are served at %s", self.url)
        self._scraper = scraper
        if settings.registry is not None:
            collector = RegistryCollector.of(settings.registry)
            self._source = Source(
                scraper,
                settings.scrape_timeout,
                self._newest_page,
                lambda name, reason: context.report_hidden(name, reason, "collision"),
                logger,
            )
            context.on_fork(after_in_child=collector.leave_to_parent)
            try:
                collector.join(self._source)
            except BaseException:
                # Core calls `start` again later: free the port for that call.
                self.shutdown(0.0)
                raise
            # The registry knows the names of a page only when there is one, and a hook cannot wait for its own cycle.
            threading.Thread(target=scraper.begin, name="eventcore-prometheus-first-page", daemon=True).start()

    @hookimpl
    def begin(self) -> None:
        """Begin a page; drop what a failed cycle has left of its own."""
        builder = self._building()
        builder.worker = self._workers.worker if self._workers is not None else None
        builder.begin()
        if self._about is not None:
            self._about.begin()

    @hookimpl
    def export_counters(self, counters: Sequence[CounterData]) -> None:
        """Add a chunk of counters to the page."""
        self._building().counters(counters)

    @hookimpl
    def export_gauges(self, gauges: Sequence[GaugeData]) -> None:
        """Add a chunk of gauges to the page."""
        self._building().gauges(self._about.take(gauges) if self._about is not None else gauges)

    @hookimpl
    def export_histograms(self, histograms: Sequence[HistogramData]) -> None:
        """Add a chunk of histograms to the page."""
        self._building().histograms(histograms)

    @hookimpl
    def flush(self) -> None:
        """Publish the page. One assignment, so that other threads see the old page or the new one."""
        builder = self._building()
        if self._about is not None:
            before = self._newest_page()
            builder.about(self._about.info, self._about.metrics(before.size(False) if before is not None else None))
        page = builder.finish()
        self._published = builder.worker, page
        if self._source is not None and self._settings.registry is not None:
            RegistryCollector.of(self._settings.registry).claim(page, self._source)

    @hookimpl
    def shutdown(self, timeout: float) -> None:
        """Let running scrapes end within ``timeout`` seconds, then close the listener and leave the registry."""
        # Also after a start that failed: core calls `start` again much later.
        self._may_start = False
        source, self._source = self._source, None
        if source is not None and self._settings.registry is not None:
            RegistryCollector.of(self._settings.registry).leave(source)
        listener, self._listener = self._listener, None
        workers, self._workers = self._workers, None
        if workers is not None:
            workers.close(timeout * 0.8)
        if listener is not None:
            # Keep a part of the time for core, which reports after this hook has returned.
            listener.close(timeout * 0.8)
        self._scraper = None

    def _building(self) -> PageBuilder:
        if self._builder is None:
            raise RuntimeError("the Prometheus exporter was not started: call start() before any export hook")
        return self._builder

    def _newest_page(self) -> Page | None:
        published = self._published
        return published[1] if published is not None else None

    def _gather(self, timeout: float) -> Future[Page] | None:
        workers = self._workers
        return workers.gather(timeout) if workers is not None else None

    def _join(self, context: ExporterContext, scraper: Scraper) -> Workers | None:
        """Join the processes of the same service; ``None`` if each answers for itself."""
        settings, port = self._settings, self._settings.port
        # Beside a service, a trial would become one of its workers and change its page. An older core does not say.
        if settings.workers == "off" or port == 0 or getattr(context, "trial", False):
            return None
        # Imported here because most of it is not needed by an exporter that answers for itself.
        from eventcore_prometheus.workers import join

        return join(
            port if port is None or not settings.host.startswith("unix:") else settings.host,
            context,
            host=settings.host,
            access=settings.access,
            listen=(lambda: self._listen(port, scraper, context.logger)) if port is not None else None,
            published=lambda: self._published,
        )

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
            limit = time_limit(headers.get("X-Prometheus-Scrape-Timeout-Seconds"), settings.scrape_timeout)
            page = scraper.fresh(limit, counts=request.method == "GET")
            return present(page, headers.get("Accept"), headers.get("Accept-Encoding"))
        except ScrapeError as error:
            return unavailable(str(error))
        finally:
            scraper.leave()
