"""Sends one request in one attempt, and translates gRPC's outcome into what core expects of an exporter."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # its stubs come without py.typed
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # as above
from opentelemetry import context as otel_context
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from eventcore.exporting import GiveUp, Rejected, RetryLater
from eventcore_otel.credentials import CertificateFiles, LiveHeaders, Metadata
from eventcore_otel.environment import Signal
from eventcore_otel.grpc_log import logged_by_grpc_to
from eventcore_otel.settings import Destination, Settings, Tls

_Response: TypeAlias = ExportMetricsServiceResponse | ExportTraceServiceResponse
# Quoted because the class can be subscripted only in its type stubs.
_Call: TypeAlias = "grpc.UnaryUnaryMultiCallable[bytes, _Response]"

# The OTLP specification asks for a retry after these codes, and after RESOURCE_EXHAUSTED when the server sends RetryInfo.
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
# Whatever is sent again, the server will not take it: the token is wrong, or it has no such service.
_HOPELESS: Final = frozenset(
    {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED}
)
# The call was cut before the answer came: the server may have taken the request.
_OUTCOME_UNKNOWN: Final = frozenset({grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED})
# gRPC's own words, in an UNAVAILABLE that no receiver has sent: the connection ended while the call waited for its answer. A
# receiver that stops cancels the calls that it has taken. gRPC gives no other sign. If a receiver used these words itself, its
# spans would be sent once more only.
_CUT: Final = re.compile(
    r"socket closed|stream removed|connection (?:reset|closed|aborted)|broken pipe|end of tcp stream|endpoint clos|"
    r"transport closed|goaway|rst_stream|keepalive|ping timeout|(?:recv|send)msg|cancelling all calls",
    re.IGNORECASE,
)
# The request was never sent, whatever follows.
_NOT_CONNECTED: Final = re.compile(r"failed to connect|errors resolving|dns resolution failed", re.IGNORECASE)
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
_SHORTEST_SECRET: Final = 6
_MAX_REASON: Final = 300
# gRPC itself ends a call at its deadline. If it does not within this many seconds more, the call is cancelled.
_GRACE: Final = 0.5
# Reconnect after at most 2 s: by default gRPC waits up to 120 s before it tries again to reach a collector that was down.
_RECONNECT: Final = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
)


class Transport:
    """The connections to the receivers of metrics and spans; one connection if target and TLS are the same for both.

    gRPC connects at the first call. ``send`` is called by the pipeline's worker thread, one call at
    a time; ``close`` may be called from any thread while ``send`` waits for an answer.

    Args:
        settings: the exporter's settings.
        user_agent: the name that the exporter sends to the receiver.
        logger: gets what a receiver says although it has accepted everything, and what gRPC logs
            about calls of the exporter.

    Raises:
        ValueError: a certificate file cannot be read.
    """

    def __init__(self, settings: Settings, user_agent: str, logger: logging.Logger) -> None:
        self._destinations: dict[Signal, Destination] = {"metrics": settings.metrics, "traces": settings.traces}
        self._connection = settings.connection
        self._logger = logger
        self._options: list[tuple[str, str | int]] = [
            ("grpc.primary_user_agent", user_agent),
            # Do not share a connection with another exporter of this process, whose reconnecting would delay this one.
            ("grpc.use_local_subchannel_pool", 1),
            *_RECONNECT,
        ]
        ask = self._connection.get_headers
        self._live = LiveHeaders(ask, self._connection.headers_lifetime) if ask is not None else None
        # The headers that the last request of each signal had.
        self._metadata: dict[Signal, Metadata] = {
            signal: tuple((name, value.reveal()) for name, value in destination.headers)
            for signal, destination in self._destinations.items()
        }
        self._files: dict[Tls, CertificateFiles] = {}
        self._files_problem = ""
        self._last_message = ""
        self._in_flight: grpc.Future[Any] | None = None
        self._closed = threading.Event()
        # Whether the last call ended because the receiver did not accept its headers.
        self._is_expired = False
        self._channels: list[grpc.Channel] = []
        self._calls: dict[Signal, _Call] = {}
        self._open()

    def send(self, signal: Signal, request: bytes, count: int, timeout: float) -> Rejected | None:
        """Send one request and wait for the answer.

        Args:
            signal: decides the receiver.
            request: the encoded request.
            count: the number of spans or data points in it.
            timeout: seconds to wait; at most the timeout of the settings is used.

        Returns:
            What the receiver rejected permanently; ``None`` when it accepted everything.

        Raises:
            RetryLater: the request failed and may be sent again. The receiver accepted nothing of
                it, unless ``outcome_unknown`` says that nobody knows.
            GiveUp: the receiver will never take it.
        """
        deadline = time.monotonic() + min(timeout, self._destinations[signal].timeout)
        self._follow_files()
        if self._live is not None:
            self._metadata[signal] = self._live.current(deadline - time.monotonic())
        try:
            with logged_by_grpc_to(self._logger):
                return self._send(signal, request, count, deadline)
        except GiveUp:
            # The receiver has refused the token, and nothing else: with another token, the request may be sent at once.
            if self._live is None or not self._is_expired:
                raise
            refused = self._metadata[signal]
            self._live.expire()
            self._metadata[signal] = self._live.current(deadline - time.monotonic())
            if self._metadata[signal] == refused:
                raise
            return self._send(signal, request, count, deadline)

    def _send(self, signal: Signal, request: bytes, count: int, deadline: float) -> Rejected | None:
        destination = self._destinations[signal]
        self._is_expired = False
        timeout = deadline - time.monotonic()
        if timeout <= 0:
            raise RetryLater(reason="DEADLINE_EXCEEDED: the cycle's time was used up before the request was sent")
        try:
            with _suppressed_instrumentation():
                call = self._calls[signal].future(
                    request,
                    timeout=timeout,
                    metadata=self._metadata[signal],
                    compression=grpc.Compression.Gzip if destination.gzip else grpc.Compression.NoCompression,
                )
        except ValueError as error:  # gRPC raises it when the channel is closed
            raise RetryLater(reason="CANCELLED: the exporter has been shut down") from error
        self._in_flight = call
        if self._closed.is_set():
            # close() was called before the line above, so that it has not seen this call.
            call.cancel()
        try:
            return self._partial_success(signal, call.result(timeout + _GRACE))
        except grpc.FutureTimeoutError as error:
            call.cancel()
            reason = f"DEADLINE_EXCEEDED: {destination.target} gave no answer within {timeout:.3g} s"
            raise RetryLater(reason=reason, outcome_unknown=True) from error
        except grpc.FutureCancelledError as error:
            raise RetryLater(
                reason="CANCELLED: the exporter was shut down while the call was in flight; its outcome is unknown",
                outcome_unknown=True,
            ) from error
        except grpc.RpcError as error:
            return self._outcome(signal, error, count, timeout)
        finally:
            self._in_flight = None

    def close(self) -> None:
        """Cancel the call in flight and close the connections. Any thread may call this, also more than once."""
        self._closed.set()
        if (call := self._in_flight) is not None:
            call.cancel()
        for channel in self._channels:
            channel.close()

    def _outcome(self, signal: Signal, error: grpc.RpcError, count: int, timeout: float) -> Rejected:
        # gRPC raises the call object itself as the error: it has code(), details() and trailing_metadata().
        call: Any = error
        code = call.code()
        reason = f"{code.name}: {self._clean(signal, call.details() or 'no details')}"
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            # gRPC regards a connection as ready for minutes after its peer has vanished without closing it. The next attempt
            # must use a new one.
            self._reopen()
            reason += f" ({self._destinations[signal].target} gave no answer within {timeout:.3g} s)"
        retry_info = _retry_info(call)
        if code in _RETRYABLE or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and retry_info is not None):
            after = retry_info.retry_delay.seconds + retry_info.retry_delay.nanos / 1e9 if retry_info else 0.0
            unknown = code in _OUTCOME_UNKNOWN or (code is grpc.StatusCode.UNAVAILABLE and _was_cut(call.details() or ""))
            raise RetryLater(after=after if after > 0 else None, reason=reason, outcome_unknown=unknown) from error
        if code in _HOPELESS:
            self._is_expired = code is grpc.StatusCode.UNAUTHENTICATED
            # UNIMPLEMENTED: the receiver has no service for this signal, as one that takes traces only.
            raise GiveUp(reason, unsupported=code is grpc.StatusCode.UNIMPLEMENTED) from error
        return Rejected(count, reason)

    def _clean(self, signal: Signal, details: str) -> str:
        """The server's text on one line of bounded length, without the values of headers, which the server may repeat."""
        for _, header in self._metadata[signal]:
            # Of `Bearer TOKEN`, the server may repeat the token alone.
            for value in (header, header.rpartition(" ")[2]):
                # A shorter one is no secret, and is found in any text.
                if len(value) >= _SHORTEST_SECRET:
                    details = details.replace(value, "***")
        details = " ".join(details.split())
        return details if len(details) <= _MAX_REASON else f"{details[:_MAX_REASON]}…"

    def _partial_success(self, signal: Signal, response: _Response) -> Rejected | None:
        success = response.partial_success
        is_traces = isinstance(response, ExportTraceServiceResponse)
        rejected: int = getattr(success, "rejected_spans" if is_traces else "rejected_data_points")
        message = self._clean(signal, success.error_message)
        if rejected > 0:
            return Rejected(rejected, f"partial success: {message or 'no reason given'}")
        if message and message != self._last_message:
            # It may be a warning, or something about the receiver only. Some repeat it in every answer.
            self._last_message = message
            self._logger.warning("the receiver of %s accepted everything and says: %s", signal, message)
        return None

    def _open(self) -> None:
        channels: dict[tuple[str, Tls | None], grpc.Channel] = {}
        for signal, destination in self._destinations.items():
            key = destination.target, destination.tls
            if (channel := channels.get(key)) is None:
                channel = channels[key] = self._channel(destination)
            method, deserializer = _METHODS[signal]
            # No serializer, because requests are already encoded, chunk by chunk. The generated stub takes one message
            # object and would encode it in a single step, which holds the GIL for the whole request.
            self._calls[signal] = channel.unary_unary(method, request_serializer=None, response_deserializer=deserializer)
        self._channels = list(channels.values())

    def _channel(self, destination: Destination) -> grpc.Channel:
        options = [*self._options, *self._connection.channel_options(destination.target)]
        if destination.tls is None:
            return grpc.insecure_channel(destination.target, options)
        credentials = self._connection.credentials
        if credentials is None:
            if (files := self._files.get(destination.tls)) is None:
                files = self._files[destination.tls] = CertificateFiles(destination.tls)
            credentials = grpc.ssl_channel_credentials(*files.contents)
        return grpc.secure_channel(destination.target, credentials, options)

    def _follow_files(self) -> None:
        """Connect anew when certificate files have changed. While they cannot be read, what was read before stays in use."""
        try:
            changed = [files.reload() for files in self._files.values()]
        except ValueError as error:
            if str(error) != self._files_problem:
                self._files_problem = str(error)
                self._logger.warning("%s; the certificates that were read before stay in use", error)
            return
        self._files_problem = ""
        if any(changed):
            self._reopen()

    def _reopen(self) -> None:
        for channel in self._channels:
            channel.close()
        if not self._closed.is_set():
            self._open()
            # close() may have been called meanwhile by another thread, before the new channels existed.
            if self._closed.is_set():
                self.close()


def _was_cut(details: str) -> bool:
    """Whether the connection of a call ended after the request may have been sent."""
    return not _NOT_CONNECTED.match(details) and _CUT.search(details) is not None


def _retry_info(call: Any) -> RetryInfo | None:
    for key, value in call.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            with suppress(DecodeError):  # details that cannot be decoded count as absent
                for detail in Status.FromString(value).details:
                    info = RetryInfo()
                    if detail.Unpack(info):
                        return info
    return None


@contextmanager
def _suppressed_instrumentation() -> Generator[None]:
    """Keep gRPC's instrumentation from tracing the exporter's own calls, whose spans would have to be exported in turn."""
    context = otel_context.set_value(_SUPPRESS, True, otel_context.set_value("suppress_instrumentation", True))
    token = otel_context.attach(context)
    try:
        yield
    finally:
        otel_context.detach(token)


_SUPPRESS: Final = otel_context._SUPPRESS_INSTRUMENTATION_KEY  # noqa: SLF001  # the key that instrumentations look up has no public name
