"""What the service reads from its environment. Telemetry and exporters have ``eventcore.toml`` and ``EVENTCORE_*``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Settings:
    """The settings of the service.

    Attributes:
        database: the URL of the database, for the store and for the read model.
        open_timeout: seconds to wait at the start for a database that is not up yet.
        drain_delay: seconds from SIGTERM until commands are refused.
        drain_timeout: seconds after that for what runs to end.
        log_format: ``json`` for machines, ``console`` for people.
    """

    database: str
    open_timeout: float = 30.0
    drain_delay: float = 5.0
    drain_timeout: float = 20.0
    log_format: Literal["json", "console"] = "json"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read ``BANK_DATABASE``, ``BANK_OPEN_TIMEOUT``, ``BANK_DRAIN_DELAY``, ``BANK_DRAIN_TIMEOUT`` and ``BANK_LOG``."""

        def seconds(name: str, default: float) -> float:
            return float(environment.get(f"BANK_{name}", default))

        return cls(
            database=environment["BANK_DATABASE"],
            open_timeout=seconds("OPEN_TIMEOUT", cls.open_timeout),
            drain_delay=seconds("DRAIN_DELAY", cls.drain_delay),
            drain_timeout=seconds("DRAIN_TIMEOUT", cls.drain_timeout),
            log_format="console" if environment.get("BANK_LOG") == "console" else "json",
        )
