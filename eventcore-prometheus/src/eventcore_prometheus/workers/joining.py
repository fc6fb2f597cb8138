"""How an exporter joins the processes of its service."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from eventcore.exporting import ExporterContext
from eventcore.serving import Access, Listener
from eventcore_prometheus.page import Page
from eventcore_prometheus.workers.crew import Service
from eventcore_prometheus.workers.place import PlaceError, is_sibling, is_supported, place_of
from eventcore_prometheus.workers.workers import RefusedError, Workers


def join(
    port: int | str | None,
    context: ExporterContext,
    *,
    host: str,
    access: Access,
    listen: Callable[[], Listener] | None,
    published: Callable[[], tuple[int | None, Page] | None],
) -> Workers | None:
    """Become one of the processes of the same service.

    Args:
        port: what the service is scraped at: a port, the path of a Unix socket, or ``None`` for the
            application's own server alone.
        context: the exporter's context.
        host: where it listens.
        access: who may read there. Processes that differ in it or in ``host`` never meet: the
            metrics of one would be served to those whom only the other one lets in.
        listen: binds the port.
        published: the page of the last cycle, and the number of the worker that is written on it.

    Returns:
        ``None`` if this process answers for itself: where there are no Unix sockets; and without a
        port, unless the parent has made this process as one of its workers.

    Raises:
        OSError: another service has the port, or its holder does not answer.
    """
    if not is_supported() or (port is None and not is_sibling()):
        return None
    name = str(context.resource.get("service.name") or "")
    try:
        # Core's default for a service without a name begins like this, as OpenTelemetry's does.
        places = place_of(port, "" if name.startswith("unknown_service") else name, _readers(host, access) if listen else "")
    except OSError as error:
        context.logger.warning("this process answers for itself alone: %s", error)
        return None

    def export(timeout: float) -> Future[None]:
        return context.export_now(timeout)

    workers = Workers(Service(places, listen, export, published, context.logger))
    try:
        workers.join()
    except PlaceError as error:
        context.logger.warning("this process answers for itself alone: %s", error)
        return None
    except RefusedError:
        if listen is None:
            return None
        # Another exporter of this process has the port: the error of the system says so.
        listen().close(0.0)
        raise OSError(errno.EADDRINUSE, "another exporter of this process had the port; try again") from None
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        hint = (
            "processes of one service share a port when all have the same service_name and user, and the same settings of "
            "host, tls_certificate, tls_client_ca, users and tokens"
        )
        raise OSError(error.errno, f"{error.strerror}; {hint}") from error
    return workers


def _readers(host: str, access: Access) -> str:
    """A digest of who may read: part of the name of a file, which must not tell a token."""
    users = sorted((user, _text_of(text)) for user, text in access.users.items())
    tokens = sorted({_text_of(token) for token in access.tokens})
    words = repr((host, access.certificate, access.client_ca, users, tokens))
    return hashlib.sha256(words.encode(errors="surrogatepass")).hexdigest()


class _Revealing(Protocol):
    def reveal(self) -> str: ...


def _text_of(secret: str | _Revealing) -> str:
    return secret if isinstance(secret, str) else secret.reveal()
