"""The checks of projections: by heartbeat and progress, never by lag alone, and whichever process runs them.

A lag that is small proves nothing: the reader may have stopped together with the number that it is compared with. A lag that is
large proves nothing either: a rebuild is behind for hours and works. So a projection is healthy if somebody runs it, the runner
shows signs of life, and its position moves while there are events behind it. What is not known is unhealthy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Final, final

import msgspec

from eventcore.catalogue import ProjectionInstruments, ProjectionProgress
from eventcore.health.bounded import Results
from eventcore.health.settings import HealthSettings
from eventcore.health.values import CheckResult, Figure, degraded, healthy, unhealthy
from eventcore.stores.base import EventLog, ProjectionLedger
from eventcore.stores.values import ProjectionRecord

_PREFIX: Final = "projection:"
_FAILED: Final = "it has failed in this process: "


@final
class _Watched(msgspec.Struct):
    """What earlier evaluations saw of one projection: its position and when it last moved, and when somebody last ran it.

    ``run_at`` is that of the first evaluation while none has seen a runner (``was_run`` is false): when the last one ended
    is then not known.
    """

    position: int
    moved_at: float
    run_at: float
    was_run: bool = False


@final
class ProjectionChecks:
    """Checks each projection by the store's record of it, and by the runner of this process if it leads.

    Args:
        log, ledger: of the store.
        instruments: know the runners of this process.
        settings: the limits.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        log: EventLog,
        ledger: ProjectionLedger,
        instruments: ProjectionInstruments,
        settings: HealthSettings,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._log = log
        self._ledger = ledger
        self._instruments = instruments
        self._settings = settings
        self._clock = clock
        self._watched: dict[str, _Watched] = {}
        self._letters: dict[str, int] = {}

    async def results(self) -> Results:
        """A result for each projection, and one for the dead letters of all."""
        # The head after the records: read before, it could be smaller than a position, and the lag too small.
        records = {record.name: record for record in await self._ledger.projections()}
        head = await self._log.head_position() if records else 0
        local = self._instruments.runners()
        names = self._expected(records, local)
        for gone in self._watched.keys() - records.keys():
            del self._watched[gone]
        results = {_PREFIX + name: self._check(name, records.get(name), local.get(name), head) for name in names}
        self._letters = {name: records[name].dead_letters for name in names if name in records}
        # The metrics show the same records: one reading serves both.
        self._instruments.observe_records([records[name] for name in names if name in records], head)
        return {**results, **self._dead_letters()}

    def without_store(self) -> Results:
        """The results while the store gives no answer: a runner of this process may still show signs of life."""
        names = {*self._instruments.runners(), *self._watched, *(self._settings.projections or ())}
        self._instruments.observe_records((), 0)
        reason = "unknown, since the store does not answer"
        return {_PREFIX + name: unhealthy(reason, position=None, lag=None) for name in sorted(names)}

    def _expected(self, records: Mapping[str, ProjectionRecord], local: Mapping[str, ProjectionProgress]) -> Sequence[str]:
        if self._settings.projections is not None:
            return sorted({*self._settings.projections, *local})
        newest: dict[str, int] = {}
        for key in (*records, *local):
            name, version = _version(key)
            newest[name] = max(version, newest.get(name, 0))
        found = {*records, *local}
        return sorted(key for key in found if key in local or _version(key)[1] == newest[_version(key)[0]])

    def _check(self, name: str, record: ProjectionRecord | None, local: ProjectionProgress | None, head: int) -> CheckResult:
        if record is None:
            if local is not None and local.state not in ("failed", "stopped"):
                return healthy(state=local.state, position=None, lag=None)
            failed = local is not None and local.state == "failed" and local.problem
            reason = _FAILED + failed if failed else "it has never run on this store, and no process runs it"
            return unhealthy(reason, position=None, lag=None)
        now, settings = self._clock(), self._settings
        position = record.checkpoint.position
        if local is not None and local.leader and local.position is not None:
            position = max(position, local.position)
        watched = self._watched.setdefault(name, _Watched(position, now, now))
        # A reset or a restored backup moves it back: that is no standstill either.
        if position != watched.position or position >= head:
            watched.position, watched.moved_at = position, now
        if record.lease_left > 0:
            watched.run_at, watched.was_run = now, True
        lag = max(0, head - position)
        heartbeat = local.heartbeat_age() if local is not None and local.leader else None
        figures: dict[str, Figure] = {
            "position": position,
            "lag": lag,
            "still_seconds": now - watched.moved_at,
            "heartbeat_age": heartbeat,
        }
        figures |= {"dead_letters": record.dead_letters, "runner": record.owner or None}
        if local is not None and local.state == "failed" and record.lease_left <= 0:
            return unhealthy(_FAILED + (local.problem or "see the log"), **figures)
        if (idle := now - watched.run_at) > settings.nobody_after:
            reason = f"no process has run it for {idle:.0f} s" if watched.was_run else "no process runs it"
            return unhealthy(reason, **figures)
        if heartbeat is not None and heartbeat > settings.stalled_after:
            return unhealthy(f"its handler has shown no sign of life for {heartbeat:.0f} s", **figures)
        if (still := now - watched.moved_at) > settings.stalled_after:
            reason = f"it has made no progress for {still:.0f} s with {lag} events waiting"
            if local is not None and local.problem:
                reason = f"{reason}: {local.problem}"
            return unhealthy(reason, **figures)
        return healthy(**figures)

    def _dead_letters(self) -> Results:
        waiting = {name: count for name, count in self._letters.items() if count}
        if not waiting:
            return {"dead_letters": healthy(waiting=0)} if self._letters else {}
        listed = ", ".join(f"{count} of {name}" for name, count in sorted(waiting.items()))
        look = f"eventcore projections dead-letters {min(waiting)} STORE_URL"
        reason = f"events could not be applied and wait: {listed}; see '{look}'"
        return {"dead_letters": degraded(reason, waiting=sum(waiting.values()))}


def _version(key: str) -> tuple[str, int]:
    name, _, version = key.partition("@")
    return name, int(version) if version.isdigit() else 1
