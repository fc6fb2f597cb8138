"""Fixtures for every test: the real parts."""

from tests.real_parts.fixtures import (
    ddapm,
    ddapm_server,
    debian_postgres,
    newest_postgres,
    prometheus_server,
    promtool_check,
    rotel,
    start_pgbouncer,
    start_postgres,
)

__all__ = [
    "ddapm",
    "ddapm_server",
    "debian_postgres",
    "newest_postgres",
    "prometheus_server",
    "promtool_check",
    "rotel",
    "start_pgbouncer",
    "start_postgres",
]
