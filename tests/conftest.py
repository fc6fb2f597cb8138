"""For every test: the real parts, as fixtures, and how long hypothesis looks for what is wrong."""

from pathlib import Path

import pytest
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

# These show on each interpreter that the driver and the store go together.
_POSTGRES_EVERYWHERE = {"test_postgres_append.py", "test_postgres_lost_answers.py"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark ``once`` what says more of PostgreSQL than of the interpreter."""
    for item in items:
        parameters = item.callspec.params.values() if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ()
        kinds = [value for value in parameters if isinstance(value, str)]
        of_postgres = item.path.is_relative_to(Path(__file__).parent / "postgres") or item.path.name == "test_postgres.py"
        if (of_postgres and item.path.name not in _POSTGRES_EVERYWHERE) or "postgresql" in kinds:
            item.add_marker(pytest.mark.once)
