"""A real gRPC server whose answers a test chooses: status codes, retry hints, or no answer."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # its stubs come without py.typed
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # as above
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_grpc

Answer = Callable[[Any, grpc.ServicerContext], Any]


class Receiver:
    """Keeps the requests that it accepts. Each call takes one of ``answers``; when none is left, every call is accepted."""

    def __init__(self) -> None:
        self.answers: deque[Answer] = deque()
        self.requests: list[Any] = []
        self.metadata: list[Mapping[str, str | bytes]] = []
        self.released = threading.Event()
        self.calls = 0
        self.port = 0
        self._server: grpc.Server | None = None
        self._answering = threading.Lock()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(
        self,
        port: int = 0,
        credentials: grpc.ServerCredentials | None = None,
        services: Iterable[str] = ("metrics", "traces"),
    ) -> None:
        server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        receive = self._receive

        class Metrics(metrics_grpc.MetricsServiceServicer):
            def Export(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  # gRPC's name
                return receive(request, context, metrics_pb2.ExportMetricsServiceResponse())

        class Traces(trace_grpc.TraceServiceServicer):
            def Export(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  # gRPC's name
                return receive(request, context, trace_pb2.ExportTraceServiceResponse())

        if "metrics" in services:
            metrics_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)  # type: ignore[no-untyped-call]  # generated code
        if "traces" in services:
            trace_grpc.add_TraceServiceServicer_to_server(Traces(), server)  # type: ignore[no-untyped-call]  # generated code
        address = f"127.0.0.1:{port}"
        self.port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
        server.start()
        self._server = server

    def stop(self) -> None:
        self.released.set()
        if self._server is not None:
            self._server.stop(0).wait(5)
            self._server = None

    def _receive(self, request: Any, context: grpc.ServicerContext, accepted: Any) -> Any:
        with self._answering:
            self.calls += 1
            self.metadata.append(dict(context.invocation_metadata()))
            answer = self.answers.popleft() if self.answers else None
        response = answer(request, context) if answer else accepted
        self.requests.append(request)
        return response

    def spans(self) -> list[Any]:
        return [
            span
            for request in self.requests
            for resource in getattr(request, "resource_spans", ())
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def metrics(self) -> list[Any]:
        return [
            metric
            for request in self.requests
            for resource in getattr(request, "resource_metrics", ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]

    def resources(self) -> list[dict[str, Any]]:
        return [
            values(part.resource.attributes)
            for request in self.requests
            for part in (*getattr(request, "resource_spans", ()), *getattr(request, "resource_metrics", ()))
        ]

    # Answers

    def hang(self) -> Answer:
        """Do not answer until the receiver stops."""

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            self.released.wait(30)
            context.abort(grpc.StatusCode.UNAVAILABLE, "released")

        return answer

    @staticmethod
    def fail(code: grpc.StatusCode, details: str = "as told", retry_after: float | None = None) -> Answer:
        """End the call with a status, and with a ``RetryInfo`` if a delay is given."""

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            if retry_after is not None:
                context.set_trailing_metadata((("grpc-status-details-bin", retry_info(code, retry_after)),))
            context.abort(code, details)

        return answer

    @staticmethod
    def refuse(count: int, message: str) -> Answer:
        """Accept the request and report ``count`` of its items as rejected."""

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            if isinstance(request, trace_pb2.ExportTraceServiceRequest):
                return trace_pb2.ExportTraceServiceResponse(
                    partial_success={"rejected_spans": count, "error_message": message}  # type: ignore[arg-type]  # stubs know no dict
                )
            return metrics_pb2.ExportMetricsServiceResponse(
                partial_success={"rejected_data_points": count, "error_message": message}  # type: ignore[arg-type]  # as above
            )

        return answer


def retry_info(code: grpc.StatusCode, seconds: float) -> bytes:
    """The status details that contain a ``RetryInfo``."""
    delay = Duration()
    delay.FromNanoseconds(int(seconds * 1e9))
    packed = AnyMessage()
    packed.Pack(RetryInfo(retry_delay=delay))
    details: bytes = Status(code=code.value[0], details=[packed]).SerializeToString()
    return details


def value(message: Any) -> Any:
    """The Python value of an OTLP ``AnyValue``."""
    kind = message.WhichOneof("value")
    if kind == "array_value":
        return [value(item) for item in message.array_value.values]
    return getattr(message, kind) if kind else None


def values(attributes: Iterable[Any]) -> dict[str, Any]:
    """OTLP attributes as a dictionary."""
    return {attribute.key: value(attribute.value) for attribute in attributes}


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A running receiver on a free port."""
    receiver = Receiver()
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.stop()


class Proxy:
    """A TCP proxy between an exporter and a receiver that can stop forwarding without closing the connections."""

    def __init__(self, port: int) -> None:
        self._behind = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._frozen: threading.Event = threading.Event()
        self._sockets: list[socket.socket] = [self._listener]
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        """Stop forwarding on all open connections; new connections work."""
        self._frozen.set()
        self._frozen = threading.Event()

    def close(self) -> None:
        self._frozen.set()
        for one in self._sockets:
            # `close` alone does not wake up a thread that waits in `recv`; `shutdown` does.
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                front, _ = self._listener.accept()
                back = socket.create_connection(("127.0.0.1", self._behind))
                self._sockets += [front, back]
                for source, target in ((front, back), (back, front)):
                    threading.Thread(target=self._pass, args=(source, target, self._frozen), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket, frozen: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not frozen.is_set():
                    target.sendall(data)
