"""Every scenario by name, with its share of the seconds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeAlias

from tests.real_parts.finding import find_part
from tests.soak import takeovers
from tests.soak.failover import through_failover
from tests.soak.on_postgres import on_postgres
from tests.soak.on_sqlite import on_sqlite
from tests.soak.proof import Findings
from tests.soak.staging import Load, postgres

Scenario: TypeAlias = Callable[[Path, Load], Awaitable[Findings]]

SCENARIOS: Final[dict[str, tuple[Scenario, float]]] = {
    "postgresql": (on_postgres, 0.55),
    "failover": (through_failover, 0.2),
    "sqlite": (on_sqlite, 0.25),
    "takeovers": (lambda directory, load: takeovers.on_postgres(directory, load, postgres()), 0.5),
    "takeovers-debian": (lambda directory, load: takeovers.on_postgres(directory, load, find_part("postgresql")), 0.5),
    "takeovers-sqlite": (takeovers.on_sqlite, 0.25),
}
USUAL: Final = ("postgresql", "failover", "sqlite")
"""The scenarios that run unless others are named."""
