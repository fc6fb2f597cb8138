"""The Prometheus exporter passes the contract: each scrape is read by the parsers of both formats of ``prometheus_client``."""

from __future__ import annotations

import os
import threading
import urllib.request
from collections.abc import Iterable, Iterator
from math import inf
from typing import Any, ClassVar, Final

import msgspec
import pytest
import uvicorn
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from starlette.applications import Starlette

from eventcore.exporting import CounterData, MetricData, Secret
from eventcore.testing import ExporterContract, ExporterSetup, Received, ReceivedExemplar, ReceivedPoint
from eventcore.testing.exporters.contract import HygieneContract, ScrapeContract, ValueContract, WorkerContract
from eventcore_prometheus import PrometheusExporter
from tests.real_parts.ports import free_ports
from tests.real_parts.waiting import wait_until

TOKEN: Final = "pr0metheus-S3cr3t"
_WORDS: Final = {
    "s": "_seconds",
    "ms": "_milliseconds",
    "By": "_bytes",
    "By/s": "_bytes_per_second",
    "Cel": "_celsius",
}


class PrometheusSetup(ExporterSetup):
    """Scrapes the exporter that was made last."""

    # The mutants need not wait long for what never comes.
    patience = float(os.environ.get("EVENTCORE_KIT_PATIENCE", "10"))
    secrets: ClassVar = (TOKEN,)
    cannot: ClassVar = {
        "spans": "Prometheus has no spans",
        **dict.fromkeys(("start_times", "times"), "the page has no times: a scrape shows the present"),
        "negative_sums": "a sum that falls would look like a restart",
        "min_max": "Prometheus has no smallest and largest value of a histogram",
        "large_integers": "Prometheus keeps floats",
        "scopes": "the page has no scopes",
        "workers": "each process answers for itself at a free port; TestWorkers has a port that they share",
    }

    accept: ClassVar[str] = "application/openmetrics-text;version=1.0.0"

    def __init__(self) -> None:
        self.made: list[PrometheusExporter] = []

    def make(self) -> object:
        self.made.append(PrometheusExporter(port=0, tokens=[Secret(TOKEN)]))
        return self.made[-1]

    def metric_name(self, data: MetricData) -> str:
        name, unit = data.name.replace(".", "_"), _WORDS.get(data.unit, "")
        # A name that ends in its unit, in words or as its symbol, gets it once.
        name = name.removesuffix(f"_{data.unit}") if "/" not in data.unit else name
        name = name if not unit or name.endswith(unit) else name + unit
        return name if not isinstance(data, CounterData) or name.endswith("_total") else f"{name}_total"

    def unit(self, unit: str) -> str:
        return _WORDS.get(unit, "").removeprefix("_")

    def label_name(self, name: str) -> str:
        return name.replace(".", "_")

    def text(self, text: str) -> str:
        # The format has no zero byte.
        return text.replace("\0", "\ufffd")

    def parse(self, page: str) -> Iterable[Any]:
        families: Iterable[Any] = parse_openmetrics(page)  # type: ignore[no-untyped-call]  # it has no types
        return families

    def received(self) -> Received:
        url = self.made[-1].url
        assert url is not None, "the exporter does not listen yet"
        headers = {"Accept": self.accept, "Authorization": f"Bearer {TOKEN}"}
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            page = answer.read().decode()
        return self.read(page)

    def read(self, page: str) -> Received:
        """What a page shows."""
        families = list(self.parse(page))
        info, *_ = [sample.labels for family in families for sample in family.samples if sample.name == "target_info"]
        return Received([point for family in families for point in _points(family)], resource=info)


class TextSetup(PrometheusSetup):
    """Scrapes the older format."""

    cannot: ClassVar = {
        **PrometheusSetup.cannot,
        "units": "the text format has no units",
        "exemplars": "the text format has no exemplars",
    }
    accept = "text/plain"

    def parse(self, page: str) -> Iterable[Any]:
        return parse_text(page)


class WorkersSetup(TextSetup):
    """Several processes share a port: the one that holds it shows what all of them have recorded."""

    cannot: ClassVar = {name: reason for name, reason in TextSetup.cannot.items() if name != "workers"}

    def __init__(self) -> None:
        super().__init__()
        [self.port] = free_ports(1)

    def make(self) -> object:
        self.made.append(PrometheusExporter(port=self.port, tokens=[Secret(TOKEN)]))
        return self.made[-1]

    def label_name(self, name: str) -> str:
        # The exporter's own label has this name.
        return "exported_worker" if name == "worker" else super().label_name(name)

    def read(self, page: str) -> Received:
        received = super().read(page)
        points = [
            msgspec.structs.replace(point, labels={name: text for name, text in point.labels.items() if name != "worker"})
            for point in received.points
        ]
        return Received(points, resource=received.resource)


class OpenMetricsWorkersSetup(WorkersSetup):
    """Scrapes the newer format."""

    cannot: ClassVar = {name: reason for name, reason in PrometheusSetup.cannot.items() if name != "workers"}
    accept = PrometheusSetup.accept
    parse = PrometheusSetup.parse


class MountedSetup(TextSetup):
    """Scrapes an application, in a server of its own, to which the newest exporter was added."""

    def __init__(self) -> None:
        super().__init__()
        self.app: Any = None

        async def newest(scope: Any, receive: Any, send: Any) -> None:
            await self.app(scope, receive, send)

        [self.port] = free_ports(1)
        self.server = uvicorn.Server(uvicorn.Config(newest, port=self.port, lifespan="off", log_level="warning"))
        self.serving = threading.Thread(target=self.server.run)
        self.serving.start()
        wait_until(lambda: self.server.started, 10, "uvicorn has started")

    def close(self) -> None:
        self.server.should_exit = True
        self.serving.join(10)

    def make(self) -> object:
        self.app = Starlette()
        # By itself: other test runs on this machine are the same service.
        exporter = PrometheusExporter(port=None, workers="off")
        exporter.mount(self.app)
        return exporter

    def received(self) -> Received:
        url = f"http://127.0.0.1:{self.port}/metrics"
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": self.accept}), timeout=10) as answer:
            return self.read(answer.read().decode())


class RegistrySetup(TextSetup):
    """Asks a registry of ``prometheus_client`` to which the exporter adds its metrics."""

    def make(self) -> object:
        self.registry = CollectorRegistry(auto_describe=True)
        self.made.append(PrometheusExporter(port=None, registry=self.registry))
        return self.made[-1]

    def received(self) -> Received:
        return self.read(generate_latest(self.registry).decode())


def _points(family: Any) -> Iterable[ReceivedPoint]:
    # A counter whose family has a name that OpenMetrics reserves for another one has no type there.
    kind = "counter" if family.type == "unknown" else family.type
    common = {"kind": kind, "description": family.documentation, "unit": family.unit}
    if family.type != "histogram":
        for sample in family.samples:
            exemplars = _exemplars(sample)
            yield ReceivedPoint(name=sample.name, labels=sample.labels, value=sample.value, exemplars=exemplars, **common)
        return
    series: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
    for sample in family.samples:
        labels = dict(sample.labels)
        bound = labels.pop("le", None)
        fields = series.setdefault(tuple(sorted(labels.items())), {"buckets": {}})
        match sample.name.removeprefix(family.name):
            case "_bucket":
                assert bound is not None
                fields["buckets"][float(bound)] = sample.value
                fields.setdefault("exemplars", []).extend(_exemplars(sample))
            case "_sum":
                fields["sum"] = sample.value
            case "_count":
                fields["count"] = int(sample.value)
    for pairs, fields in series.items():
        below = 0.0
        buckets: dict[float, int] = {}
        for bound, count in sorted(fields["buckets"].items()):
            buckets[bound], below = int(count - below), count
        assert buckets.get(inf) is not None
        yield ReceivedPoint(name=family.name, labels=dict(pairs), **common, **(fields | {"buckets": buckets}))


def _exemplars(sample: Any) -> list[ReceivedExemplar]:
    if (found := sample.exemplar) is None:
        return []
    ids = {"trace_id": found.labels["trace_id"], "span_id": found.labels["span_id"]}
    return [ReceivedExemplar(value=found.value, time_ns=round(float(found.timestamp) * 1000) * 10**6, **ids)]


@pytest.mark.once
class TestTextFormat(ExporterContract):
    @pytest.fixture
    def exporter_setup(self) -> PrometheusSetup:
        return TextSetup()


@pytest.mark.once
@pytest.mark.parametrize("format_of", [WorkersSetup, OpenMetricsWorkersSetup], ids=["text", "OpenMetrics"])
class TestWorkers(WorkerContract):
    @pytest.fixture
    def exporter_setup(self, format_of: type[PrometheusSetup]) -> PrometheusSetup:
        return format_of()


@pytest.mark.once
class TestInARegistry(ValueContract):
    @pytest.fixture
    def exporter_setup(self) -> PrometheusSetup:
        return RegistrySetup()


@pytest.mark.once
class TestOpenMetrics(ValueContract):
    @pytest.fixture
    def exporter_setup(self) -> PrometheusSetup:
        return PrometheusSetup()


@pytest.mark.once
class TestMounted(ScrapeContract, HygieneContract):
    @pytest.fixture
    def exporter_setup(self) -> Iterator[PrometheusSetup]:
        setup = MountedSetup()
        yield setup
        setup.close()
