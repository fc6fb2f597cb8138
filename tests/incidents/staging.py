"""What an incident happens to: the example service with its database, a collector, and a page for Prometheus."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.real_parts import ReceivedSpan, Rotel, free_ports, wait_until
from tests.real_parts.postgres import PostgresServer

_ROOT: Final = Path(__file__).parents[2]
_LABEL: Final = re.compile(r'([a-z_]+)="([^"]*)"')


class Service:
    """The example service, in processes of its own.

    Args:
        server: where a new database is made for it.
        collector: gets its metrics and spans.
        directory: where its log is written.
        workers: how many processes serve it.
        environment: further variables.
    """

    def __init__(
        self,
        server: PostgresServer,
        collector: Rotel,
        directory: Path,
        workers: int = 1,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.server, self.collector = server, collector
        self.database = server.new_database()
        self._workers = workers
        port, self._page = free_ports(2)
        self.url = f"http://127.0.0.1:{port}"
        self._port = port
        self._log = directory / f"service-{self.database}.log"
        inherited = {name: text for name, text in os.environ.items() if not name.startswith(("OTEL_", "EVENTCORE_", "BANK_"))}
        self._environment = inherited | {
            "BANK_DATABASE": server.url(self.database),
            "BANK_DRAIN_DELAY": "1.5",
            "EVENTCORE_EXPORTERS": "otel,prometheus",
            "EVENTCORE_TELEMETRY__SERVICE_NAME": "bank",
            # Every command shall be found again at the collector.
            "EVENTCORE_TELEMETRY__TRACES_PER_SECOND": "all",
            "EVENTCORE_EXPORTERS__OTEL__ENDPOINT": collector.grpc_endpoint,
            "EVENTCORE_EXPORTERS__OTEL__TIMEOUT": "2.0",
            "EVENTCORE_EXPORTERS__OTEL__PIPELINE__INTERVAL": "1.0",
            "EVENTCORE_EXPORTERS__PROMETHEUS__PORT": str(self._page),
            **(environment or {}),
        }
        self.process: subprocess.Popen[bytes] | None = None
        # Nothing that happened before is of this service.
        self.started_ns = time.time_ns()

    def start(self, **changed: str) -> subprocess.Popen[bytes]:
        """Start it, with some variables changed, and return without waiting."""
        with self._log.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "uvicorn", "--factory", "tests.incidents.service:create_app"),
                    *("--port", str(self._port), "--workers", str(self._workers), "--no-access-log"),
                ],
                cwd=_ROOT,
                stdout=output,
                stderr=output,
                env=self._environment | changed,
            )
        return self.process

    def close(self) -> None:
        """End it, whatever state it is in. A worker ends when its parent has ended."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def probe(self, path: str, timeout: float = 1.0) -> tuple[int, dict[str, Any]]:
        """The answer of a health endpoint; status 0 when none came within ``timeout``, which is Kubernetes' default."""
        try:
            answer = httpx.get(f"{self.url}/health/{path}", timeout=timeout)
        except httpx.TransportError as error:
            return 0, {"error": type(error).__name__}
        return answer.status_code, answer.json()

    def wait_until_ready(self, timeout: float = 60) -> None:
        """Wait until the service is ready and its projection runs."""
        wait_until(lambda: self.probe("readyz")[0] == 200, timeout, f"the service is ready; its log: {self._log}")

    def post(self, path: str, timeout: float = 30, **body: Any) -> int:
        """The status of the answer to a request; 0 for none."""
        try:
            return httpx.post(f"{self.url}/{path}", json=body, timeout=timeout).status_code
        except httpx.TransportError:
            return 0

    def deposit(self, name: str = "ada") -> int:
        """Deposit 1; the status of the answer."""
        return self.post(f"accounts/{name}/deposits", amount=1)

    def records(self) -> list[dict[str, Any]]:
        """The records of the log that are JSON."""
        found = []
        for line in self.log().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            found += [record] if isinstance(record, dict) else []
        return found

    def log(self) -> str:
        """Everything that the service has printed."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def metric(self, *series: str) -> float | None:
        """The sum of the samples of one scrape with this name and these labels, each ``name{label="value"}``.

        Several series are subtracted from the first one. ``None`` if there is no sample of one of them.
        """
        try:
            page = httpx.get(f"http://127.0.0.1:{self._page}/metrics", timeout=5).text
        except httpx.TransportError:
            return None
        samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
        values: list[float] = []
        for each in series:
            name, _, labels = each.partition("{")
            wanted = dict(_LABEL.findall(labels))
            found = [one.value for one in samples if one.name == name and wanted.items() <= one.labels.items()]
            if not found:
                return None
            values.append(sum(found))
        return values[0] - sum(values[1:])

    def spans(self) -> list[ReceivedSpan]:
        """The spans that the collector has of this service, oldest first."""
        return self.collector.spans()


@contextmanager
def load(service: Service, clients: int = 2, pause: float = 0.05, name: str = "load") -> Iterator[Counter[int]]:
    """In this block, clients send deposits one after the other; yields how many answers had which status, 0 for none."""
    answers: Counter[int] = Counter()
    stop = threading.Event()

    def send() -> None:
        with httpx.Client(base_url=service.url, timeout=10) as client:
            while not stop.wait(pause):
                try:
                    status = client.post(f"/accounts/{name}/deposits", json={"amount": 1}).status_code
                except httpx.TransportError:
                    status = 0
                answers[status] += 1

    threads = [threading.Thread(target=send, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        deadline = time.monotonic() + 15
        for thread in threads:
            thread.join(max(0.1, deadline - time.monotonic()))


class Stage:
    """A database server and a collector, for one incident after the other.

    Args:
        server: it may be stopped and started again.
        collector: it may be, too.
        directory: for the logs of services.
        running: a service that incidents use which need no special one; by default, each starts its own.
    """

    def __init__(self, server: PostgresServer, collector: Rotel, directory: Path, running: Service | None = None) -> None:
        self.server, self.collector, self.directory, self.running = server, collector, directory, running

    @contextmanager
    def service(self, workers: int = 1, *, ready: bool = True, **environment: str) -> Iterator[Service]:
        """A new service with a new database; started and ready unless ``ready`` is false."""
        if self.running is not None and workers == 1 and ready and not environment:
            yield self.running
            return
        service = Service(self.server, self.collector, self.directory, workers, environment)
        try:
            if ready:
                service.start()
                service.wait_until_ready()
            yield service
        finally:
            service.close()
