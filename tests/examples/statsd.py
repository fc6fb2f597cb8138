"""A real StatsD server, which adds up and serves what it got (Prometheus' statsd_exporter), and how the contract reads it."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any, ClassVar, Literal

from eventcore.exporting import MetricData
from eventcore.testing import Received, ReceivedPoint
from eventcore.testing.exporters.samples import BOUNDARIES
from tests.examples.servers import ExampleServer, ServerSetup
from tests.real_parts.ports import free_ports
from tests.real_parts.server import ServerProcess
from tests.real_parts.waiting import wait_until

_LINE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_TYPE = re.compile(r"^# TYPE (\w+) (\w+)$")


class StatsdServer(ExampleServer):
    """One server that listens on UDP and on a Unix socket. A server that is started again begins with nothing.

    Args:
        program: the path of ``statsd_exporter``.
        directory: where its socket and log go; the path must be short, as the path of a socket is.
    """

    def __init__(self, program: Path, directory: Path) -> None:
        super().__init__(program, directory)
        self.socket_path = str(directory / "s")
        self.port, self._web = free_ports(2)
        self.start()

    def launch(self) -> ServerProcess:
        command = [str(self._program), f"--web.listen-address=127.0.0.1:{self._web}", "--statsd.listen-tcp="]
        command += [f"--statsd.listen-udp=127.0.0.1:{self.port}", f"--statsd.listen-unixgram={self.socket_path}"]
        command += ["--statsd.event-flush-interval=5ms"]
        return ServerProcess(command, self._directory / "statsd.log", {}, self._directory)

    def page(self) -> str:
        """What the server has got, in the text format of Prometheus."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._web}/metrics", timeout=5) as response:
            text: str = response.read().decode()
        return text

    def answers(self) -> bool:
        try:
            return bool(self.page())
        except OSError:
            return False


def read_page(page: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], tuple[str, float]]:
    """The kind and value of each series of a page."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[str, float]] = {}
    kinds: dict[str, str] = {}
    for line in page.splitlines():
        if declared := _TYPE.match(line):
            kinds[declared[1]] = declared[2]
        elif sample := _LINE.match(line):
            labels = tuple(sorted((name, _unescaped(text)) for name, text in _LABEL.findall(sample[2] or "")))
            found[sample[1], labels] = kinds.get(sample[1], ""), float(sample[3])
    return found


class StatsdSetup(ServerSetup):
    """Builds the exporter for a server of its own, and reads the server's page."""

    adds_up: ClassVar[bool] = True
    cannot: ClassVar[Mapping[str, str]] = {
        "spans": "the exporter has no hook for spans",
        "scopes": "the protocol has no scopes",
        "exemplars": "the protocol has no exemplars",
        "resource": "the protocol has no resource",
        "units": "the protocol has no units",
        "descriptions": "the protocol has no descriptions",
        "start_times": "the protocol has no times",
        "times": "the protocol has no times",
        "min_max": "a difference of a histogram has none",
        "non_finite": "the protocol has no NaN and no infinity",
        "large_integers": "the server keeps floats",
        **dict.fromkeys(("waits", "rejections", "refusals", "cuts"), "the protocol has no answers"),
        **dict.fromkeys(("rotations", "lost_secrets"), "the exporter has no secrets"),
    }

    def __init__(self, server: StatsdServer, transport: Literal["udp", "unix"]) -> None:
        super().__init__(server)
        self._server = server
        self._transport = transport
        # What servers had got that were stopped since: totals begin anew with each.
        self._before: dict[Any, tuple[str, float]] = {}

    def make(self) -> object:
        from eventcore_statsd import StatsdExporter

        if self._transport == "unix":
            return StatsdExporter(socket_path=self._server.socket_path)
        return StatsdExporter(port=self._server.port)

    def _series(self) -> dict[Any, tuple[str, float]]:
        now = read_page(self._server.page())
        total = self._before | now
        for key, (kind, value) in self._before.items():
            if kind == "counter" and key in now:
                total[key] = kind, value + now[key][1]
        return total

    def _settled(self) -> dict[Any, tuple[str, float]]:
        """What the server has got, when it has taken everything out of its socket."""
        seen = [read_page(self._server.page())]

        def is_settled() -> bool:
            seen.append(read_page(self._server.page()))
            lines = [{key: value for key, value in page.items() if "lines_total" in key[0]} for page in seen[-3:]]
            return len(lines) == 3 and lines[0] == lines[1] == lines[2]

        wait_until(is_settled, step=0.03)
        return self._series()

    def received(self) -> Received:
        series = self._series()
        histograms: dict[Any, dict[str, Any]] = {}
        points: list[ReceivedPoint] = []
        is_histogram = {name.removesuffix("_bucket") for (name, _) in series if name.endswith("_bucket")}
        is_histogram |= {
            name.removesuffix("_sum") for (name, _), (kind, _) in series.items() if name.endswith("_sum") and kind == "counter"
        }
        for (name, labels), (kind, value) in series.items():
            base, _, part = name.rpartition("_")
            if kind == "counter" and base in is_histogram and part in ("count", "sum", "bucket"):
                rest = tuple(pair for pair in labels if pair[0] != "le")
                fields = histograms.setdefault((base, rest), {"buckets": {}})
                if part == "bucket":
                    bound = dict(labels)["le"]
                    fields["buckets"][inf if bound == "inf" else float(bound)] = int(value)
                else:
                    fields[part] = value
            else:
                points.append(ReceivedPoint(name=name, labels=dict(labels), value=value, kind=kind))
        # The exporter does not send an empty bucket: add those of the sample histograms.
        bounded = {name for (name, _), fields in histograms.items() if fields["buckets"].keys() - {inf}}
        for (name, _), fields in histograms.items():
            if name in bounded:
                fields["buckets"] = dict.fromkeys((*BOUNDARIES, inf), 0) | fields["buckets"]
        points += [
            ReceivedPoint(name=name, labels=dict(labels), kind="histogram", **fields)
            for (name, labels), fields in histograms.items()
        ]
        return Received(points)

    def metric_name(self, data: MetricData) -> str:
        return data.name.replace(".", "_")

    def label_name(self, name: str) -> str:
        return name.replace(".", "_")

    def text(self, text: str) -> str:
        from eventcore_statsd.lines import tag_text

        return tag_text(text)

    @contextmanager
    def outage(self) -> Iterator[None]:
        self._before = self._settled()
        with super().outage():
            yield


class UdpSetup(StatsdSetup):
    """The same over UDP, which does not say what has arrived."""

    cannot: ClassVar[Mapping[str, str]] = {
        **StatsdSetup.cannot,
        "acknowledgements": "UDP does not say what has arrived",
        "outages": "what is sent while the server is down is lost, and with it the totals",
        "stalls": "the system drops what the server does not fetch in time",
    }

    def __init__(self, server: StatsdServer) -> None:
        super().__init__(server, "udp")


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], text)
