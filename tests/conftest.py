"""For every test: the real parts as fixtures, hypothesis' profiles, and the marks that whole files share."""

import logging
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings

from eventcore.exporting.logs import bounded_logger
from tests.real_parts.fixtures import (
    chromium,
    collector_to_jaeger,
    ddapm,
    ddapm_server,
    debian_postgres,
    jaeger,
    newest_postgres,
    otel_collector,
    otel_collector_server,
    prometheus3_server,
    prometheus_server,
    promtool_check,
    pushgateway,
    rotel,
    start_pgbouncer,
    start_postgres,
)

__all__ = [
    "chromium",
    "collector_to_jaeger",
    "ddapm",
    "ddapm_server",
    "debian_postgres",
    "jaeger",
    "newest_postgres",
    "otel_collector",
    "otel_collector_server",
    "prometheus3_server",
    "prometheus_server",
    "promtool_check",
    "pushgateway",
    "rotel",
    "start_pgbouncer",
    "start_postgres",
]

# pytest --hypothesis-profile=long
settings.register_profile("long", max_examples=2000, deadline=None)

_TESTS: Final = Path(__file__).parent


@pytest.fixture(autouse=True)
def records_of_earlier_tests_do_not_count() -> None:
    """Give every logger with a limited rate a new limit: loggers outlive a test, and the one before may have used it up."""
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if not name.startswith("eventcore") or not isinstance(logger, logging.Logger):
            continue
        bounds = [present for present in logger.filters if type(present).__module__ == bounded_logger.__module__]
        for present in bounds:
            logger.removeFilter(present)
        if bounds:
            bounded_logger(name)


# Folders and files below `tests` whose tests have a mark, all of them. What the marks mean is in the root's pyproject.toml.
# A single test, or a file of a folder that is not listed, is marked where it is written: `@pytest.mark.timing`.
_MARKED: Final = {
    # They test real servers, through drivers that are tested on every interpreter elsewhere.
    "once": (
        "contract/test_postgres.py",
        "end_to_end",
        "otel/test_otel_collector.py",
        "otel/test_otel_real_receivers.py",
        "postgres",
        "prometheus/test_real_prometheus.py",
        "real_parts",
        "workers",
    ),
    # All parts of the example stack, for a minute.
    "long": ("stack/test_live.py",),
    "timing": (
        # Deadlines of exporters and pipelines, and how soon an event loop or a thread runs again.
        "otel/test_otel_delivery.py",
        "otel/test_otel_telemetry.py",
        "pipeline",
        "prometheus/test_listener.py",
        "prometheus/test_scraping.py",
        "recording/test_collector.py",
        # How soon a store finds out that its server does not answer, and what it does then.
        "health/test_opening.py",
        "postgres/test_postgres_breaker.py",
        "postgres/test_postgres_connections.py",
        "postgres/test_postgres_outages.py",
        # Leases that run out, and how soon another process takes over.
        "projections/test_crashes.py",
        "projections/test_leadership.py",
        # A rate that the replay keeps.
        "flights/test_flights_replay.py",
        # More processes than a machine has cores.
        "soak",
        "workers",
    ),
}
# These files run on every interpreter all the same: they show that asyncpg, asyncio and the store go together.
_NOT_ONCE: Final = ("postgres/test_postgres_append.py", "postgres/test_postgres_lost_answers.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the listed files, and mark ``once`` every test that runs on PostgreSQL because of its parameter."""
    for path in (*_MARKED["once"], *_MARKED["timing"], *_MARKED["long"], *_NOT_ONCE):
        if not (_TESTS / path).exists():
            raise pytest.UsageError(f"tests/conftest.py lists {path}, which does not exist: was the file renamed?")
    for item in items:
        for mark, paths in _MARKED.items():
            exempt = mark == "once" and _is_below(item, _NOT_ONCE)
            if _is_below(item, paths) and not exempt:
                item.add_marker(mark)
        if "postgresql" in _parameters(item):
            item.add_marker("once")


def _is_below(item: pytest.Item, paths: tuple[str, ...]) -> bool:
    return any(item.path.is_relative_to(_TESTS / path) for path in paths)


def _parameters(item: pytest.Item) -> list[object]:
    # A list of values that are compared, not hashed: parameters may be dictionaries.
    return list(item.callspec.params.values()) if isinstance(item, pytest.Function) and hasattr(item, "callspec") else []
