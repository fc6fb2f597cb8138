"""One attempt to send one request, and what its outcome means."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # its stubs come without py.typed
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # as above
from opentelemetry import context as otel_context
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from eventcore.exporting import Rejected, RetryLater
from eventcore_otel.environment import Signal
from eventcore_otel.settings import Destination, Settings, Tls

_Response: TypeAlias = ExportMetricsServiceResponse | ExportTraceServiceResponse
# Quoted: the class takes parameters in its type stubs only.
_Call: TypeAlias = "grpc.UnaryUnaryMultiCallable[bytes, _Response]"

# The codes after which the OTLP specification asks for a retry; RESOURCE_EXHAUSTED only when the server says when.
_RETRYABLE: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
_METHODS: Final[dict[Signal, tuple[str, Any]]] = {
    "metrics": (
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        ExportMetricsServiceResponse.FromString,
    ),
    "traces": (
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        ExportTraceServiceResponse.FromString,
    ),
}
_DETAILS_KEY: Final = "grpc-status-details-bin"
_MAX_REASON: Final = 300
# gRPC ends a call at its deadline by itself; this is only how long we believe that.
_GRACE: Final = 0.5
# Without these gRPC waits up to 120 s before it looks for a collector that has come back.
_RECONNECT: Final = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
)


class Transport:
    """The connections to the receivers of metrics and spans: one where both go the same way. They are made at the first call.

    Args:
        settings: where to, and how.
        user_agent: how we name ourselves.

    Raises:
        ValueError: a certificate's file cannot be read.
    """

    def __init__(self, settings: Settings, user_agent: str) -> None:
        self._destinations: dict[Signal, Destination] = {"metrics": settings.metrics, "traces": settings.traces}
        self._options = [
            ("grpc.primary_user_agent", user_agent),
            # A connection of our own: an exporter to the same target that hangs or reconnects is no concern of this one.
            ("grpc.use_local_subchannel_pool", 1),
            *_RECONNECT,
        ]
        self._metadata = {
            signal: tuple((name, value.reveal()) for name, value in destination.headers)
            for signal, destination in self._destinations.items()
        }
        self._in_flight: grpc.Future[Any] | None = None
        self._closed = threading.Event()
        self._channels: list[grpc.Channel] = []
        self._calls: dict[Signal, _Call] = {}
        self._open()

    def send(self, signal: Signal, request: bytes, count: int, timeout: float) -> Rejected | None:
        """Send one request of ``count`` items and wait up to ``timeout`` seconds for the answer.

        Returns:
            What the receiver refused for good, ``None`` when it took everything.

        Raises:
            RetryLater: it may take the request later; nothing of it was taken, as far as can be known.
        """
        destination = self._destinations[signal]
        timeout = min(timeout, destination.timeout)
        if timeout <= 0:
            raise RetryLater(reason="DEADLINE_EXCEEDED: no time was left to send")
        try:
            with _suppressed_instrumentation():
                call = self._calls[signal].future(
                    request,
                    timeout=timeout,
                    metadata=self._metadata[signal],
                    compression=grpc.Compression.Gzip if destination.gzip else grpc.Compression.NoCompression,
                )
        except ValueError as error:  # what gRPC raises when the channel has been closed
            raise RetryLater(reason="CANCELLED: the exporter has been shut down") from error
        self._in_flight = call
        if self._closed.is_set():
            # shutdown() came between the call and its being known.
            call.cancel()
        try:
            return _partial_success(call.result(timeout + _GRACE))
        except grpc.FutureTimeoutError as error:
            call.cancel()
            raise RetryLater(reason=f"DEADLINE_EXCEEDED: {destination.target} gave no answer within {timeout:.3g} s") from error
        except grpc.FutureCancelledError as error:
            raise RetryLater(
                reason="CANCELLED: shut down while the call was in flight; what became of it is unknown"
            ) from error
        except grpc.RpcError as error:
            return self._outcome(signal, error, count, timeout)
        finally:
            self._in_flight = None

    def close(self) -> None:
        """End the connections, and the call in flight with them; from any thread."""
        self._closed.set()
        if (call := self._in_flight) is not None:
            call.cancel()
        for channel in self._channels:
            channel.close()

    def _outcome(self, signal: Signal, error: grpc.RpcError, count: int, timeout: float) -> Rejected:
        # A call's error is the call itself: it has code(), details() and trailing_metadata().
        call: Any = error
        code = call.code()
        reason = f"{code.name}: {self._clean(signal, call.details() or 'no details')}"
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            # A connection whose peer has vanished without a word stays "ready" for minutes: the next attempt uses a new one.
            self._reopen()
            reason += f" ({self._destinations[signal].target} gave no answer within {timeout:.3g} s)"
        retry_info = _retry_info(call)
        if code in _RETRYABLE or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and retry_info is not None):
            after = retry_info.retry_delay.seconds + retry_info.retry_delay.nanos / 1e9 if retry_info else 0.0
            raise RetryLater(after=after if after > 0 else None, reason=reason) from error
        return Rejected(count, reason)

    def _clean(self, signal: Signal, details: str) -> str:
        """What the server says, on one line of bounded length, without the secrets that it might repeat."""
        for _, value in self._metadata[signal]:
            if value:
                details = details.replace(value, "***")
        details = " ".join(details.split())
        return details if len(details) <= _MAX_REASON else f"{details[:_MAX_REASON]}…"

    def _open(self) -> None:
        channels: dict[tuple[str, Tls | None], grpc.Channel] = {}
        for signal, destination in self._destinations.items():
            key = destination.target, destination.tls
            if (channel := channels.get(key)) is None:
                channel = channels[key] = _channel(destination, self._options)
            method, deserializer = _METHODS[signal]
            # No serializer: the request comes as bytes, put together from parts that were encoded one by one. The generated
            # stub would want one message, whose serialisation holds the interpreter's lock as long as it is large.
            self._calls[signal] = channel.unary_unary(method, request_serializer=None, response_deserializer=deserializer)
        self._channels = list(channels.values())

    def _reopen(self) -> None:
        for channel in self._channels:
            channel.close()
        if not self._closed.is_set():
            self._open()
            if self._closed.is_set():
                self.close()


def _channel(destination: Destination, options: list[tuple[str, Any]]) -> grpc.Channel:
    if (tls := destination.tls) is None:
        return grpc.insecure_channel(destination.target, options)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=_pem("certificate", tls.certificate),
        private_key=_pem("client_key", tls.client_key),
        certificate_chain=_pem("client_certificate", tls.client_certificate),
    )
    return grpc.secure_channel(destination.target, credentials, options)


def _pem(parameter: str, path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{parameter}={path!r}: cannot be read ({error.strerror}); expected a file in PEM format") from error


def _partial_success(response: _Response) -> Rejected | None:
    if isinstance(response, ExportTraceServiceResponse):
        refused = response.partial_success.rejected_spans
    else:
        refused = response.partial_success.rejected_data_points
    message = response.partial_success.error_message
    # Without a number it is only a warning: everything was taken.
    return Rejected(refused, f"partial success: {message or 'no reason given'}") if refused > 0 else None


def _retry_info(call: Any) -> RetryInfo | None:
    for key, value in call.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            with suppress(DecodeError):  # then the server has said nothing that we understand
                for detail in Status.FromString(value).details:
                    info = RetryInfo()
                    if detail.Unpack(info):
                        return info
    return None


@contextmanager
def _suppressed_instrumentation() -> Generator[None]:
    """Make an instrumented gRPC leave our own calls alone, which would otherwise become spans that have to be exported."""
    context = otel_context.set_value(_SUPPRESS, True, otel_context.set_value("suppress_instrumentation", True))
    token = otel_context.attach(context)
    try:
        yield
    finally:
        otel_context.detach(token)


_SUPPRESS: Final = otel_context._SUPPRESS_INSTRUMENTATION_KEY  # noqa: SLF001  # what instrumentations ask for has no public name
