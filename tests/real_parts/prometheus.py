"""A real Prometheus server that scrapes, and promtool."""

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.real_parts.ports import free_ports
from tests.real_parts.server import ServerFailed, ServerProcess
from tests.real_parts.waiting import wait_until


@dataclass(frozen=True)
class Sample:
    """One sample of an instant query; ``labels`` has the metric's name as ``__name__`` where the query keeps it."""

    labels: Mapping[str, str]
    value: float


class Prometheus:
    """One server that scrapes ``targets``.

    Args:
        program: the path of ``prometheus``.
        directory: where its configuration, data and log go; its own.
        targets: what it scrapes, each ``127.0.0.1:PORT``.
        metrics_path: the path of every target.
        scrape_interval: in seconds.
        features: what the server calls its features, in a list with commas.
    """

    def __init__(
        self,
        program: Path,
        directory: Path,
        targets: Sequence[str],
        metrics_path: str = "/metrics",
        scrape_interval: float = 0.2,
        features: str = "exemplar-storage,native-histograms",
    ) -> None:
        configuration = directory / "prometheus.yml"
        milliseconds = f"{max(1, round(scrape_interval * 1000))}ms"
        # JSON is valid YAML; the encoder quotes and escapes every string.
        configuration.write_text(
            json.dumps(
                {
                    "global": {"scrape_interval": milliseconds, "scrape_timeout": milliseconds},
                    "scrape_configs": [
                        {"job_name": "tests", "metrics_path": metrics_path, "static_configs": [{"targets": list(targets)}]}
                    ],
                }
            )
        )
        for remaining in (2, 1, 0):
            (self._port,) = free_ports(1)
            command = [str(program), f"--config.file={configuration}", f"--storage.tsdb.path={directory / 'data'}"]
            command += [f"--web.listen-address=127.0.0.1:{self._port}", f"--enable-feature={features}"]
            self._server = ServerProcess(command, directory / "prometheus.log", {}, directory)
            try:
                self._server.wait_until_ready(self._ready, 20)
                break
            except ServerFailed:
                # Another process may have taken the port after free_ports returned it.
                if not remaining:
                    raise

    @property
    def url(self) -> str:
        """The address of the server, ``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self._port}"

    def stop(self) -> None:
        """Stop the server."""
        self._server.stop()

    def wait_until_up(self, timeout: float = 20) -> None:
        """Wait until the last scrape of every target succeeded; the first scrape starts 5 seconds after the server.

        Raises:
            AssertionError: not within ``timeout`` seconds.
        """
        wait_until(
            lambda: bool(found := self.targets()) and all(one["health"] == "up" for one in found),
            timeout,
            "every target is up",
        )

    def targets(self) -> list[dict[str, Any]]:
        """The active targets as the API gives them, among others with ``health``, ``lastError`` and ``scrapeUrl``."""
        found: list[dict[str, Any]] = self._get("/api/v1/targets")["activeTargets"]
        return found

    def query(self, promql: str) -> list[Sample]:
        """The samples of an instant query, without the labels that the scrape added.

        Raises:
            AssertionError: the server refuses the query; with its message.
        """
        data = self._get("/api/v1/query?" + urllib.parse.urlencode({"query": promql}))
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        return [
            Sample({key: text for key, text in row["metric"].items() if key not in ("job", "instance")}, float(row["value"][1]))
            for row in data["result"]
        ]

    def exemplars(self, selector: str) -> list[dict[str, Any]]:
        """The exemplars of the last five minutes of the series that ``selector`` selects, each with its series' labels."""
        now = time.time()
        asked = urllib.parse.urlencode({"query": selector, "start": now - 300, "end": now + 5})
        rows: Any = self._get("/api/v1/query_exemplars?" + asked)
        return [{**exemplar, "series": row["seriesLabels"]} for row in rows for exemplar in row["exemplars"]]

    def value(self, promql: str) -> float:
        """The value of the only sample of an instant query.

        Raises:
            AssertionError: there is none, or more than one.
        """
        samples = self.query(promql)
        assert len(samples) == 1, f"{promql} gave {len(samples)} samples: {samples}"
        return samples[0].value

    def raw(self, selector: str) -> list[list[float]]:
        """The values of each series as they were scraped, in order; ``selector`` ends in a range such as ``[60s]``."""
        data = self._get("/api/v1/query?" + urllib.parse.urlencode({"query": selector}))
        return [[float(value) for _, value in row["values"]] for row in data["result"]]

    def _get(self, path: str) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as refused:
            with refused:
                raise AssertionError(refused.read().decode()) from refused
        data: dict[str, Any] = answer["data"]
        return data

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5):
                return True
        except OSError:
            return False


@dataclass(frozen=True)
class PromtoolResult:
    """The result of ``promtool check metrics``; ``returncode`` is 0 for a good page, 1 for no page, 3 for a lint warning."""

    returncode: int
    output: str

    @property
    def ok(self) -> bool:
        """Whether promtool found no fault."""
        return self.returncode == 0


def check_metrics(program: Path, text: str | bytes) -> PromtoolResult:
    """Run ``promtool check metrics`` on a page in the plain text format."""
    page = text.encode() if isinstance(text, str) else text
    done = subprocess.run(
        [program, "check", "metrics"], check=False, input=page, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20
    )
    return PromtoolResult(done.returncode, done.stdout.decode())
