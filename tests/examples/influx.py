"""A real InfluxDB, and how the contract of exporters reads it back."""

from __future__ import annotations

import base64
import json
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from eventcore.exporting import Secret
from eventcore.testing import Received, ReceivedPoint
from tests.examples.servers import ExampleServer, ServerSetup
from tests.real_parts.ports import free_ports
from tests.real_parts.server import ServerProcess

PASSWORD = "p4ss-of-the-tests"
USER = "writer"


class InfluxServer(ExampleServer):
    """One server that demands a password, with a folder of its own.

    Args:
        program: the path of ``influxd``.
        directory: where its data and log go.
    """

    def __init__(self, program: Path, directory: Path) -> None:
        super().__init__(program, directory)
        self.port, self._backup = free_ports(2)
        self.start()
        self.query(f"CREATE USER {USER} WITH PASSWORD '{PASSWORD}' WITH ALL PRIVILEGES")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def launch(self) -> ServerProcess:
        folder = self._directory
        env = {
            "HOME": str(folder),
            "INFLUXDB_BIND_ADDRESS": f"127.0.0.1:{self._backup}",
            "INFLUXDB_DATA_DIR": str(folder / "data"),
            "INFLUXDB_DATA_WAL_DIR": str(folder / "wal"),
            "INFLUXDB_HTTP_AUTH_ENABLED": "true",
            "INFLUXDB_HTTP_BIND_ADDRESS": f"127.0.0.1:{self.port}",
            "INFLUXDB_META_DIR": str(folder / "meta"),
            "INFLUXDB_MONITOR_STORE_ENABLED": "false",
            "INFLUXDB_REPORTING_DISABLED": "true",
            "INFLUXDB_HTTP_LOG_ENABLED": "false",
        }
        return ServerProcess([str(self._program)], folder / "influxd.log", env, folder)

    def query(self, text: str, database: str = "") -> list[dict[str, Any]]:
        """The series that a query returns.

        Raises:
            AssertionError: the server refuses the query.
        """
        data = urllib.parse.urlencode({"q": text, "db": database, "epoch": "ns"}).encode()
        request = urllib.request.Request(f"{self.url}/query", data)
        request.add_header("Authorization", f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}")
        with urllib.request.urlopen(request, timeout=10) as response:
            [result] = json.load(response)["results"]
        assert "error" not in result, result
        series: list[dict[str, Any]] = result.get("series", [])
        return series

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/ping", timeout=2):
                return True
        except OSError:
            return False


class InfluxSetup(ServerSetup):
    """Builds the exporter for a database of its own, and queries it."""

    secrets: ClassVar[Sequence[str]] = (PASSWORD,)
    cannot: ClassVar[Mapping[str, str]] = {
        "spans": "the exporter has no hook for spans",
        "scopes": "the line protocol has no scopes",
        "exemplars": "the line protocol has no exemplars",
        "resource": "the line protocol has no resource",
        "kinds": "a measurement has no type",
        "units": "a measurement has no unit",
        "descriptions": "a measurement has no description",
        "start_times": "a point has one time",
        "non_finite": "the line protocol has no NaN and no infinity",
        "large_integers": "values are floats, because a field keeps its first type",
        "rejections": "the server rejects what has another type than before; a test of its own brings that about",
        "refusals": "the server takes everything of this user; tests of their own have a wrong password and database",
        "cuts": "the server always answers",
        "rotations": "the password is fixed when the exporter is made",
        "lost_secrets": "the exporter reads no secret while it runs",
    }

    def __init__(self, server: InfluxServer, database: str) -> None:
        super().__init__(server)
        self._server = server
        self._database = database
        server.query(f'CREATE DATABASE "{database}"')

    def make(self) -> object:
        from eventcore_influx import InfluxExporter

        return InfluxExporter(url=self._server.url, database=self._database, username=USER, password=Secret(PASSWORD))

    @contextmanager
    def busy(self, seconds: float) -> Iterator[None]:
        # The server never asks for a pause: one that does takes its place.
        class Busy(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(503)
                self.send_header("Retry-After", f"{seconds:.0f}")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        with self.outage():
            server = ThreadingHTTPServer(("127.0.0.1", self._server.port), Busy)
            answering = threading.Thread(target=server.serve_forever, args=(0.05,))
            answering.start()
            try:
                yield
            finally:
                server.shutdown()
                answering.join()
                server.server_close()

    def received(self) -> Received:
        rows = self._server.query("SELECT * FROM /.*/ GROUP BY *", self._database)
        points = [_point(series, values) for series in rows for values in series["values"]]
        return Received(sorted(points, key=lambda point: point.time_ns or 0))

    def text(self, text: str) -> str:
        from eventcore_influx.lines import tag_text

        return tag_text(text)

    def label_name(self, name: str) -> str:
        return "time_" if name == "time" else name


def _point(series: Mapping[str, Any], values: Sequence[Any]) -> ReceivedPoint:
    fields = {name: value for name, value in zip(series["columns"], values, strict=True) if value is not None}
    buckets = {float(name[3:]): count for name, count in fields.items() if name.startswith("le_")}
    return ReceivedPoint(
        name=series["name"],
        labels=series.get("tags", {}),
        value=fields.get("value"),
        count=fields.get("count"),
        sum=fields.get("sum"),
        min=fields.get("min"),
        max=fields.get("max"),
        buckets=buckets if "count" in fields else None,
        time_ns=fields["time"],
    )
