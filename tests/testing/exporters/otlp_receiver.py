"""An OTLP server whose answers the contract chooses, over TLS or without, and the exporter's setups for it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Final

import grpc
import trustme
from google.protobuf.json_format import MessageToDict

from eventcore.testing import Received
from eventcore_otel import OpenTelemetryExporter
from tests.otel.receiver import Receiver
from tests.real_parts.otlp_json import points_of, spans_of
from tests.testing.exporters.otlp_setup import OtlpSetup, received_from

TOKENS: Final = ("0telT0ken-1st", "0telT0ken-2nd", "0telT0ken-3rd", "0telT0ken-4th", "0telT0ken-5th")
_NAMES: Final = ("certificate", "client_certificate", "client_key")


class GuardedReceiver(Receiver):
    """Takes requests that have the token. ``answer`` comes instead, if it is set."""

    token = TOKENS[0]
    answer: Callable[[Any, grpc.ServicerContext, Any], Any] | None = None

    def _receive(self, request: Any, context: grpc.ServicerContext, accepted: Any) -> Any:
        found = dict(context.invocation_metadata()).get("authorization")
        if found != f"Bearer {self.token}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, f"nobody knows {found!r}")
        with self._answering:
            if self.answer is not None:
                return self.answer(request, context, accepted)
            self.requests.append(request)
            return accepted


class CuttingProxy:
    """Passes bytes on between exporter and receiver, until it cuts the connections."""

    def __init__(self, behind: int) -> None:
        self.behind = behind
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections; new ones work."""
        sockets, self._sockets = self._sockets, []
        for each in sockets:
            # `close` alone does not wake up a thread that waits in `recv`; `shutdown` does.
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def close(self) -> None:
        self._sockets.append(self._listener)
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                front, _ = self._listener.accept()
                try:
                    back = socket.create_connection(("127.0.0.1", self.behind))
                except OSError:
                    front.close()
                    continue
                self._sockets += [front, back]
                for source, target in ((front, back), (back, front)):
                    threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


class ReceiverSetup(OtlpSetup):
    """One server in this process, with a token that does not change."""

    secrets: ClassVar[Sequence[str]] = TOKENS[:1]
    cannot: ClassVar = {
        **dict.fromkeys(("outages", "stalls", "waits"), "rotel is stopped in its place"),
        **dict.fromkeys(("rotations", "lost_secrets"), "the token is fixed; TestOverTls has others"),
    }

    def __init__(self) -> None:
        self.receiver = GuardedReceiver()
        self._start()
        self.proxy = CuttingProxy(self.receiver.port)
        self._read: list[Received] = []

    def close(self) -> None:
        self.proxy.close()
        self.receiver.stop()

    def make(self) -> object:
        headers = {"authorization": f"Bearer {self.receiver.token}"}
        return OpenTelemetryExporter(endpoint=f"http://127.0.0.1:{self.proxy.port}", headers=headers, timeout=5.0)

    def received(self) -> Received:
        for request in self.receiver.requests[len(self._read) :]:
            content = [MessageToDict(request, preserving_proto_field_name=True)]
            self._read.append(received_from(list(points_of(content)), list(spans_of(content))))
        points = [point for each in self._read for point in each.points]
        return Received(points, [span for each in self._read for span in each.spans])

    @contextmanager
    def reject(self, count: int, reason: str) -> Iterator[None]:
        def answer(request: Any, _: grpc.ServicerContext, accepted: Any) -> Any:
            is_spans = hasattr(request, "resource_spans")
            rejected = _without_first(request, count)
            self.receiver.requests.append(request)
            setattr(accepted.partial_success, "rejected_spans" if is_spans else "rejected_data_points", rejected)
            accepted.partial_success.error_message = reason
            return accepted

        with self._answering(answer):
            yield

    @contextmanager
    def refuse(self, after: int, reason: str, *, for_good: bool) -> Iterator[None]:
        remaining = iter(range(after))
        code = grpc.StatusCode.UNAUTHENTICATED if for_good else grpc.StatusCode.UNAVAILABLE

        def answer(request: Any, context: grpc.ServicerContext, accepted: Any) -> Any:
            if next(remaining, None) is None:
                context.abort(code, reason)
            self.receiver.requests.append(request)
            return accepted

        with self._answering(answer):
            yield

    @contextmanager
    def cut(self) -> Iterator[None]:
        def answer(request: Any, _: grpc.ServicerContext, accepted: Any) -> Any:
            self.receiver.requests.append(request)
            self.proxy.cut()
            return accepted

        with self._answering(answer):
            yield

    @contextmanager
    def _answering(self, answer: Callable[[Any, grpc.ServicerContext, Any], Any]) -> Iterator[None]:
        self.receiver.answer = answer
        try:
            yield
        finally:
            self.receiver.answer = None

    def _start(self) -> None:
        self.receiver.start()


class SecureSetup(ReceiverSetup):
    """The same over TLS, where each side checks the other: certificates in files, and the token from a callable, change."""

    secrets: ClassVar[Sequence[str]] = TOKENS
    cannot: ClassVar = dict.fromkeys(("outages", "stalls", "waits"), "rotel is stopped in its place")

    def __init__(self, folder: Path) -> None:
        self.files = {name: folder / f"{name}.pem" for name in _NAMES}
        super().__init__()

    def make(self) -> object:
        return OpenTelemetryExporter(
            endpoint=f"https://localhost:{self.proxy.port}",
            headers=lambda: {"authorization": f"Bearer {self.receiver.token}"},
            timeout=5.0,
            certificate=str(self.files["certificate"]),
            client_certificate=str(self.files["client_certificate"]),
            client_key=str(self.files["client_key"]),
        )

    def rotate(self) -> None:
        self.receiver.token = TOKENS[TOKENS.index(self.receiver.token) + 1]
        self.receiver.stop()
        self._start()
        self.proxy.behind = self.receiver.port
        self.proxy.cut()

    @contextmanager
    def lose_secrets(self) -> Iterator[None]:
        away = {path: path.with_suffix(".away") for path in self.files.values()}
        for path, other in away.items():
            path.rename(other)
        try:
            yield
        finally:
            for path, other in away.items():
                other.rename(path)

    def _start(self) -> None:
        authority = trustme.CA()
        mine, its = authority.issue_cert("client@example.org"), authority.issue_cert("localhost")
        contents = (authority.cert_pem, mine.cert_chain_pems[0], mine.private_key_pem)
        for path, content in zip(self.files.values(), contents, strict=True):
            # A file that is read while it is written would be half a certificate.
            new = path.with_suffix(".new")
            new.write_bytes(content.bytes())
            new.rename(path)
        pair = its.private_key_pem.bytes(), its.cert_chain_pems[0].bytes()
        self.receiver.start(
            credentials=grpc.ssl_server_credentials([pair], authority.cert_pem.bytes(), require_client_auth=True)
        )


def _without_first(request: Any, count: int) -> int:
    """Take the first items out of a request; returns how many there were to take."""
    taken = 0
    for resource in (*getattr(request, "resource_spans", ()), *getattr(request, "resource_metrics", ())):
        for scope in (*getattr(resource, "scope_spans", ()), *getattr(resource, "scope_metrics", ())):
            for items in _items_of(scope):
                while items and taken < count:
                    del items[0]
                    taken += 1
    return taken


def _items_of(scope: Any) -> Iterator[Any]:
    if hasattr(scope, "spans"):
        yield scope.spans
    for metric in getattr(scope, "metrics", ()):
        yield getattr(metric, metric.WhichOneof("data")).data_points
