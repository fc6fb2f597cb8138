"""An OTLP receiver that changes its behaviour on command, and remembers what it took from whom."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from contextlib import suppress
from typing import Any, Final

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_pb2

from tests.otel.receiver import Receiver, values

# `exhausted` refuses for good, `busy` asks for a retry, `restarting` cuts the calls that it has taken.
STATES: Final = ("fine", "down", "slow", "unavailable", "exhausted", "busy", "partly", "restarting")
# The exporters wait so long for an answer, in seconds.
CALL_TIMEOUT: Final = 1.0
# "partly": spans whose ids are divisible by this number are refused.
_REFUSED: Final = 7


class Collector(Receiver):
    """Takes spans and the totals of the counter ``work``, by the instance id of the process that sent them.

    Attributes:
        taken: how often each span arrived, by instance.
        totals: the highest total of the counter ``work``, by instance.
        answers_in: how many calls came in each state.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.taken: defaultdict[str, Counter[bytes]] = defaultdict(Counter)
        self.totals: Counter[str] = Counter()
        self.answers_in: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._state = "fine"
        # Guards what is taken, the random numbers and the number of calls.
        self._lock = threading.Condition()
        self._in_flight = 0

    def live_through(self, state: str, seconds: float) -> None:
        """Be in a state for some time."""
        until = time.monotonic() + seconds
        self._state = state
        if state == "down":
            self.stop()
            _wait_until(until)
            self.restart()
        elif state == "restarting":
            while time.monotonic() < until:
                _wait_until(min(until, time.monotonic() + self._random.uniform(0.2, 0.6)))
                self.stop()
                self.restart()
        else:
            _wait_until(until)
        self._state = "fine"

    def restart(self) -> None:
        """Listen on the same port again."""
        deadline = time.monotonic() + 10
        while True:
            try:
                self.start(self.port)
                return
            except RuntimeError:  # the port is not free yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def finish(self) -> None:
        """Stop, and wait until every call that has come is counted."""
        self.stop()
        with self._lock:
            if not self._lock.wait_for(lambda: not self._in_flight, 10):
                raise TimeoutError(f"{self._in_flight} calls have not ended after 10 s")

    def _receive(self, request: Any, context: grpc.ServicerContext, accepted: Any) -> Any:
        with self._lock:
            self._in_flight += 1
            self.answers_in[self._state] += 1
            # A slow collector takes what comes either before or after the pause in which the caller gives up.
            first, pause = self._random.random() < 0.5, self._random.uniform(0.2, 1.8) * CALL_TIMEOUT
        try:
            return self._answer(self._state, request, context, accepted, first=first, pause=pause)
        finally:
            with self._lock:
                self._in_flight -= 1
                self._lock.notify_all()

    def _answer(
        self, state: str, request: Any, context: grpc.ServicerContext, accepted: Any, *, first: bool, pause: float
    ) -> Any:
        if state == "unavailable":
            self.fail(grpc.StatusCode.UNAVAILABLE, "try later")(request, context)
        if state == "exhausted":
            self.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "quota used up")(request, context)
        if state == "busy":
            self.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", retry_after=0.3)(request, context)
        if state == "partly":
            refused = self._take(request, partly=True)
            return self.refuse(refused, "divisible")(request, context) if refused else accepted
        if state == "slow" or (state == "restarting" and first):
            if first:
                self._take(request)
            time.sleep(pause)
            if not first:
                self._take(request)
            return accepted
        self._take(request)
        return accepted

    def _take(self, request: Any, *, partly: bool = False) -> int:
        """Take what a request has; returns how many spans were refused."""
        refused = 0
        with self._lock:
            if not isinstance(request, trace_pb2.ExportTraceServiceRequest):
                for part in request.resource_metrics:
                    instance = values(part.resource.attributes)["service.instance.id"]
                    self.totals[instance] = max(self.totals[instance], _total(part))
                return 0
            for part in request.resource_spans:
                taken = self.taken[values(part.resource.attributes)["service.instance.id"]]
                for scope in part.scope_spans:
                    for span in scope.spans:
                        # What it has it does not refuse: its answer may not have reached the sender.
                        if partly and span.span_id not in taken and not int.from_bytes(span.span_id, "big") % _REFUSED:
                            refused += 1
                        else:
                            taken[span.span_id] += 1
        return refused


def _total(part: Any) -> int:
    """The sum of the counter ``work`` in the metrics of one resource."""
    return sum(
        point.as_int or round(point.as_double)
        for scope in part.scope_metrics
        for metric in scope.metrics
        if metric.name == "work"
        for point in metric.sum.data_points
    )


def _wait_until(moment: float) -> None:
    with suppress(ValueError):  # the moment has passed
        time.sleep(moment - time.monotonic())
