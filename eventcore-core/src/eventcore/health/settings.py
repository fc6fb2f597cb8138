"""When a check is not healthy: the limits, each with a default that suits most services, from code and configuration."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, Final, final, get_type_hints

import msgspec

from eventcore.errors import Fault
from eventcore.exporting.configuration.conversion import convert_fields
from eventcore.exporting.configuration.settings import Configuration
from eventcore.exporting.configuration.sources import ENVIRONMENT, below, source_of
from eventcore.ground.arguments import check_seconds

_TABLE: Final = "health"

_ESSENTIAL: Final = ("store", "pool", "append", "event_loop", "disk")


@final
class HealthSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What ``open_store(health=...)`` and the table ``[health]`` of the configuration take. All times are in seconds.

    Attributes:
        keep: a result is this old at most when it is returned again: many probes at once cost one evaluation.
        interval: time between evaluations that no probe asks for. They keep ``since`` and the metric ``health.status`` true.
        limit: time for one evaluation; a check that has not answered by then is unhealthy.
        essential: further checks without which the store is not ready, by name; ``*`` stands for any characters:
            ``("projection:balances", "exporter:*")``. By default, projections, exporters and dead letters only degrade.
            A name that no check has is itself an unhealthy check, and a pattern that fits none a degraded one.
        projections: the projections that must be running in some process, by their keys (``name``, ``name@2``). ``None``: every
            one that has ever run on the store, except a version that a later one has replaced.
        nobody_after: how long no process may hold the lease of a projection.
        stalled_after: how long a runner may show no sign of life, or a projection that is behind make no progress.
        blocked_after: how long a callback may block the event loop before the loop counts as degraded, and the stack of the
            code that blocks it is logged.
        dead_after: how long the event loop must be blocked until the process is not live.
        append_after: how long an append, or a call that waits for a connection, may wait before it counts as degraded. After
            five times that it is unhealthy.
        disk_free: bytes that must be free on the disk of a SQLite file; below a tenth of it the disk is unhealthy.

    Raises:
        ValueError: a number is out of its range, or ``essential`` or ``projections`` is one text and not several.

    >>> HealthSettings(essential=("projection:*",)).is_essential("projection:balances")
    True
    """

    keep: float = 1.0
    interval: float = 5.0
    limit: float = 2.0
    essential: tuple[str, ...] = ()
    projections: tuple[str, ...] | None = None
    nobody_after: float = 15.0
    stalled_after: float = 30.0
    blocked_after: float = 0.5
    dead_after: float = 20.0
    append_after: float = 1.0
    disk_free: int = 512 << 20

    def __post_init__(self) -> None:
        for name in ("interval", "limit", "nobody_after", "stalled_after", "blocked_after", "dead_after", "append_after"):
            check_seconds(name, getattr(self, name))
        check_seconds("keep", self.keep, or_0=True)
        for name in ("essential", "projections"):
            if isinstance(value := getattr(self, name), str):
                raise ValueError(f"{name}={value!r:.80}; expected several names, such as ({value!r:.80},)")
        if self.disk_free < 0:
            raise ValueError(f"disk_free={self.disk_free!r}; expected a number of bytes, 0 or more")

    def essential_without_check(self, checks: Iterable[str]) -> list[str]:
        """What ``essential`` names and none of these checks is. A pattern of projections or exporters may fit none."""
        present = (*checks, "projection:", "exporter:")
        return [each for each in self.essential if not any(fnmatchcase(check, each) for check in present)]

    def is_essential(self, check: str) -> bool:
        """Whether the store is not ready while this check is unhealthy."""
        return check in _ESSENTIAL or any(fnmatchcase(check, pattern) for pattern in self.essential)


def configured_health(configuration: Configuration, given: HealthSettings | None = None) -> tuple[HealthSettings, list[Fault]]:
    """The settings of code and configuration together, and the faults of the table ``[health]``.

    Precedence is that of all settings: environment, code, file, default. Of ``given``, what differs from the default counts.
    A faulty value is left out.
    """
    table = below(configuration.settings, _TABLE)
    faults: list[Fault] = []
    if (single := table.pop((), None)) is not None and not single.is_table:
        faults.append(Fault(single.where, single.key, f"expected a table, got a {type(single.value).__name__}"))
    values, found = convert_fields(get_type_hints(HealthSettings), table, _TABLE)
    faults += found
    code, default = given or HealthSettings(), HealthSettings()
    chosen: dict[str, Any] = {}
    for name, value in values.items():
        setting = below(table, name)
        in_code = getattr(code, name) != getattr(default, name)
        if in_code and not any(each.where == ENVIRONMENT for each in setting.values()):
            continue
        try:
            HealthSettings(**{name: value})
        except ValueError as error:
            # Of a value from the environment, no message may repeat the text.
            _, _, expected = str(error).partition("expected ")
            faults.append(Fault(*source_of(setting, f"{_TABLE}.{name}"), f"it is out of its range; expected {expected}"))
        else:
            chosen[name] = value
    return msgspec.structs.replace(code, **chosen), faults
