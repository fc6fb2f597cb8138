"""For every test: the real parts, as fixtures, and how long hypothesis looks for what is wrong."""

from hypothesis import settings

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

# pytest --hypothesis-profile=long
settings.register_profile("long", max_examples=2000, deadline=None)
