"""What the author of an exporter tells the contract: how to build the exporter, and how to read back what its backend got."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import ClassVar, Final

from eventcore.exporting import MetricData
from eventcore.testing.exporters.received import Received

LIMITS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "counters": "the exporter has no hook for counters",
        "gauges": "the exporter has no hook for gauges",
        "histograms": "the exporter has no hook for histograms",
        "spans": "the exporter has no hook for spans",
        "kinds": "the backend does not keep whether a metric is a counter, a gauge or a histogram",
        "units": "the backend does not keep units",
        "descriptions": "the backend does not keep descriptions",
        "start_times": "the backend does not keep when a series began",
        "times": "the backend does not keep the time of a point, or sets its own",
        "sums": "the backend does not keep the sum of a histogram",
        "min_max": "the backend does not keep the smallest and the largest value of a histogram",
        "negative_sums": "the backend has no sum and count of a histogram whose values may be negative",
        "buckets": "the backend does not keep the buckets of a histogram",
        "non_finite": "the backend does not take NaN and infinity: the exporter leaves such points out",
        "large_integers": "the backend rounds integers beyond `largest_exact`",
        "precision": "the backend keeps a few digits of a number with a fraction: `tolerance` says how far it may be off",
        "scopes": "the backend does not keep which part of a program recorded something",
        "exemplars": "the backend does not keep exemplars",
        "resource": "the backend does not keep the attributes of what sends to it, such as `service.name`",
        "span_ids": "the backend does not keep trace and span ids",
        "span_parents": "the backend does not keep the parents of spans",
        "span_kinds": "the backend does not keep the kinds of spans",
        "span_times": "the backend does not keep begin and end of spans",
        "span_attributes": "the backend does not keep attributes of spans, or not their types",
        "span_events": "the backend does not keep events of spans",
        "span_links": "the backend does not keep links of spans",
        "span_states": "the backend does not keep the `tracestate` of spans",
        "span_statuses": "the backend does not keep the status of spans",
        "acknowledgements": "the backend does not say that it got something, as with UDP: what it misses is lost",
        "outages": "the receiver cannot be stopped and started again: `outage` is not overridden",
        "stalls": "the receiver cannot be made to accept and never answer: `stall` is not overridden",
        "forks": "the exporter cannot run in a forked child",
        "workers": "a scrape of one process does not show what its forked workers recorded",
        "waits": "the receiver cannot be made to ask for a pause: `busy` is not overridden, or the protocol has no such answer",
        "rejections": "the receiver cannot take a part of a request: `reject` is not overridden, or no answer says so",
        "refusals": "the receiver cannot be made to refuse requests: `refuse` is not overridden, or it never answers",
        "cuts": "the receiver cannot take a request and end the connection: `cut` is not overridden",
        "rotations": "the exporter has no secrets, or they are fixed when it is made: `rotate` is not overridden",
        "lost_secrets": "the exporter reads no secret or certificate while it runs: `lose_secrets` is not overridden",
    }
)
"""What may be declared in ``ExporterSetup.cannot``, each with what the declaration says."""


class ExporterSetup(ABC):
    """How to build the exporter under test, and how to read back what its backend got.

    The fixture ``exporter_setup`` of a test class returns or yields it.

    A real receiver shows more than a fake: start one in the fixture, and stop it after the ``yield``.

    Attributes:
        cannot: what this backend cannot take, of ``LIMITS``, each with the reason. The tests of it are skipped and show the
            reason; a test fails if a kind is declared for which the exporter has a hook, or a name is unknown.
        secrets: the texts of the secrets that ``make`` gives to the exporter. They must be in no ``repr``, log or report.
        tolerance: how far a number with a fraction may be off, as a share of it; for a backend with the limit ``"precision"``.
        largest_exact: whole numbers up to it must arrive as they are; larger ones, too, without the limit ``"large_integers"``.
        quantiles: which quantiles, from 0 to 1, the backend shows of each histogram that has values. Each must lie where the
            values are.
        has_rates: whether the backend shows the rate of a counter, computed by the exporter.
        patience: seconds within which a backend that works must have got what was delivered.
        adds_up: whether the backend adds the differences of a delta exporter up, so that ``received`` returns totals.

    >>> from eventcore.testing import RecordingExporter, Received
    >>> class InMemory(ExporterSetup):
    ...     cannot = {"outages": "it is in memory", "stalls": "it is in memory", "forks": "memory is not shared"}
    ...     def __init__(self):
    ...         self.made = []
    ...     def make(self):
    ...         self.made.append(RecordingExporter())
    ...         return self.made[-1]
    ...     def received(self):
    ...         return Received(*map(sum, zip(*[(r.points, r.spans) for r in map(RecordingExporter.received, self.made)])))
    """

    cannot: ClassVar[Mapping[str, str]] = MappingProxyType({})
    secrets: ClassVar[Sequence[str]] = ()
    tolerance: ClassVar[float] = 1e-12
    largest_exact: ClassVar[int] = 2**53
    quantiles: ClassVar[Sequence[float]] = ()
    has_rates: ClassVar[bool] = False
    adds_up: ClassVar[bool] = False
    patience: ClassVar[float] = 10.0

    @abstractmethod
    def make(self) -> object:
        """Return a new exporter that delivers to the receiver of this test. Called several times in some tests."""

    @abstractmethod
    def received(self) -> Received:
        """What the backend has got since the test began.

        It is asked until what is expected has come, or `patience` seconds have passed.

        For an exporter that is scraped: scrape it. An exception counts as "not yet".
        """

    def outage(self) -> AbstractContextManager[object]:
        """Stop the receiver; when the context is left, start it again at the same address.

        What it got before stays in ``received``. While it is stopped, connections are refused.
        """
        raise NotImplementedError(
            f"{type(self).__name__}.outage: override it so that the receiver is stopped and, at the end of the context, "
            "started again at the same address; or declare cannot = {'outages': 'why'}"
        )

    def stall(self) -> AbstractContextManager[object]:
        """Let the receiver accept connections and never answer (a process: ``SIGSTOP``), until the context is left."""
        raise NotImplementedError(
            f"{type(self).__name__}.stall: override it so that the receiver accepts and never answers, until the end of the "
            "context; or declare cannot = {'stalls': 'why'}"
        )

    def busy(self, seconds: float) -> AbstractContextManager[object]:
        """Let the receiver refuse everything until the context is left, and ask to wait for ``seconds`` each time.

        Protocols call it ``Retry-After`` or ``RetryInfo``.
        """
        raise NotImplementedError(
            f"{type(self).__name__}.busy: override it so that the receiver refuses everything and asks to wait for {seconds:g} "
            "seconds, until the end of the context; or declare cannot = {'waits': 'why'}"
        )

    def reject(self, count: int, reason: str) -> AbstractContextManager[object]:
        """Let the receiver reject the first ``count`` items of each request for good, until the context is left.

        It keeps the others, and its answer says how many it has rejected and ``reason``. With a ``count`` of 0 it takes
        everything, and says ``reason`` all the same, if the protocol has a place for it. Items are spans or points.
        """
        raise NotImplementedError(
            f"{type(self).__name__}.reject: override it so that the receiver rejects {count} items of each request and takes "
            "the others, until the end of the context; or declare cannot = {'rejections': 'why'}"
        )

    def refuse(self, after: int, reason: str, *, for_good: bool) -> AbstractContextManager[object]:
        """Let the receiver take ``after`` more requests and refuse all that follow, until the context is left.

        Args:
            after: how many requests are taken first, 0 or more.
            reason: what the receiver says, if the protocol has a place for it.
            for_good: whether the answer says that sending it again is useless, such as HTTP 401; otherwise that the receiver
                is not ready, such as HTTP 503, without a time to wait.
        """
        raise NotImplementedError(
            f"{type(self).__name__}.refuse: override it so that the receiver takes {after} requests and refuses those that "
            "follow, until the end of the context; or declare cannot = {'refusals': 'why'}"
        )

    def cut(self) -> AbstractContextManager[object]:
        """Let the receiver take each request, and end the connection in place of an answer, until the context is left."""
        raise NotImplementedError(
            f"{type(self).__name__}.cut: override it so that the receiver takes requests and ends their connections without an "
            "answer, until the end of the context; or declare cannot = {'cuts': 'why'}"
        )

    def rotate(self) -> None:
        """Change what the exporter proves itself with, and what it checks the receiver by: tokens, passwords, certificates.

        Afterwards the receiver accepts the new ones only, and the exporter can find them where it looks: in a file, or from
        a callable. Each new secret must be in `secrets` from the beginning.
        """
        raise NotImplementedError(
            f"{type(self).__name__}.rotate: override it so that the receiver accepts a new secret only, which the exporter can "
            "find; or declare cannot = {'rotations': 'why'}"
        )

    def lose_secrets(self) -> AbstractContextManager[object]:
        """Let the exporter find no secrets or certificates where it looks for new ones, until the context is left.

        Those that it has stay valid.
        """
        raise NotImplementedError(
            f"{type(self).__name__}.lose_secrets: override it so that the exporter finds no new secrets, until the end of the "
            "context, while the receiver accepts those it has; or declare cannot = {'lost_secrets': 'why'}"
        )

    def metric_name(self, data: MetricData) -> str:
        """The name that the backend shows for a metric; by default the name itself."""
        return data.name

    def label_name(self, name: str) -> str:
        """The name that the backend shows for a label; by default the name itself."""
        return name

    def unit(self, unit: str) -> str:
        """The unit that the backend shows for a unit; by default the unit itself."""
        return unit

    def text(self, text: str) -> str:
        """The text that the backend shows for a label's value or a span's name; by default the text itself.

        Override it where the backend or its protocol has no room for some characters.
        """
        return text
