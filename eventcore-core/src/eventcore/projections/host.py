"""The projections that one store runs: starting and stopping them, waiting for them, and their dead letters."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Sequence
from time import monotonic
from typing import Any, Final, final

import msgspec

from eventcore.catalogue import ProjectionInstruments
from eventcore.errors import HistoryDiverged, ProjectionTimeout, StoreClosed, StoreError
from eventcore.events.codec import Codec, StoredEvent
from eventcore.projections.definition import Definition, projection_key
from eventcore.projections.handling import HandlerFailed, Handling
from eventcore.projections.positions import Positions
from eventcore.projections.projection import Projection
from eventcore.projections.projector import storable
from eventcore.projections.runner import Runner
from eventcore.stores.base import Backend, DeadLetter, EventFilter, ProjectionRecord
from eventcore.telemetry import Telemetry

# Seconds between looks at the checkpoint of a projection that another process runs: soon at first, then less often.
_FIRST_LOOK: Final = 0.01
_LAST_LOOK: Final = 0.1
_STOP: Final = 10.0
_ALL: Final = 2**31 - 1


@final
class RetriedDeadLetters(msgspec.Struct, frozen=True):
    """What became of dead letters that were tried again: those that are applied now, and those that remain with their error."""

    applied: tuple[DeadLetter, ...]
    remaining: tuple[DeadLetter, ...]


@final
class ProjectionHost:
    """Runs projections on one backend."""

    def __init__(self, backend: Backend, codec: Codec, instruments: ProjectionInstruments, telemetry: Telemetry) -> None:
        self._backend = backend
        self._codec = codec
        self._instruments = instruments
        self._telemetry = telemetry
        self._positions = Positions()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = False

    async def run(self, projection: Projection, lease: float) -> None:
        """See ``EventStore.run``."""
        definition = Definition.of(projection, self._backend.system)
        if not 0.1 <= lease <= 3600:
            raise ValueError(f"lease={lease!r}; expected seconds from 0.1 to 3600")
        runner = Runner(self._backend, definition, self._codec, self._positions, self._instruments, self._telemetry, lease)
        task = asyncio.create_task(runner.run(), name=f"eventcore-run-{definition.key}", context=contextvars.Context())
        self._tasks.add(task)
        try:
            await asyncio.wait([task])
        finally:
            _cancel(task)
            _, left = await asyncio.wait([task], timeout=_STOP)
            if not left:
                self._tasks.discard(task)
        if task.cancelled() and self._closing:
            return
        await task

    async def close(self, timeout: float) -> None:
        """Stop what runs, and give the leases back, within ``timeout`` seconds."""
        self._closing = True
        for task in self._tasks:
            _cancel(task)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)

    async def wait_for(self, projection: Projection | str, position: int, timeout: float) -> None:
        """See ``EventStore.wait_for``."""
        key = projection_key(projection)
        deadline = monotonic() + timeout
        pause = _FIRST_LOOK
        while True:
            if self._positions.get(key) is None:
                record = await self._record(key)
                if record is not None and record.checkpoint.position >= position:
                    return
            else:
                record, pause = None, _LAST_LOOK
            left = deadline - monotonic()
            if await self._positions.wait(key, position, max(0.0, min(left, pause))):
                return
            if left <= 0:
                break
            pause = min(_LAST_LOOK, pause * 2)
        known = self._positions.get(key)
        if known is None and record is not None:
            known = record.checkpoint.position
        where = "nobody has ever run it" if known is None else f"it is at {known}"
        raise ProjectionTimeout(f"projection {key!r} has not reached position {position} within {timeout:g} s: {where}")

    async def projections(self) -> Sequence[ProjectionRecord]:
        """See ``EventStore.projections``."""
        return await self._backend.ledger.projections()

    async def dead_letters(self, projection: Projection | str, limit: int) -> Sequence[DeadLetter]:
        """See ``EventStore.dead_letters``."""
        return await self._backend.ledger.dead_letters(projection_key(projection), limit)

    async def retry_dead_letters(self, projection: Projection) -> RetriedDeadLetters:
        """See ``EventStore.retry_dead_letters``."""
        definition = Definition.of(projection, self._backend.system)
        series = self._instruments.bind(definition.key)
        handling = Handling(definition, self._codec, series.handle, verbose=self._telemetry.verbosity == "verbose")
        applied: list[DeadLetter] = []
        remaining: list[DeadLetter] = []
        for letter in await self._backend.ledger.dead_letters(definition.key, _ALL):
            try:
                if await self._apply(letter, definition, handling):
                    series.events["applied"].add(1)
                    applied.append(letter)
            except HandlerFailed as failure:
                cause = failure.__cause__ or failure
                series.failed(cause)
                remaining.append(
                    msgspec.structs.replace(
                        letter, error_type=type(cause).__name__, error=storable(str(cause)), attempts=letter.attempts + 1
                    )
                )
        return RetriedDeadLetters(tuple(applied), tuple(remaining))

    async def reset(self, projection: Projection | str) -> None:
        """See ``EventStore.reset_projection``."""
        await self._backend.ledger.reset_projection(projection_key(projection))

    async def _apply(self, letter: DeadLetter, definition: Definition, handling: Handling) -> bool:
        row = await self._row(letter)
        if not definition.transactional:
            await handling.apply([row])
            return await self._backend.ledger.remove_dead_letter(letter)
        inside = handling.inside(await handling.decode([row]))
        try:
            return await self._backend.ledger.remove_dead_letter(letter, inside)
        except StoreError as error:
            if type(error) is StoreError:
                raise HandlerFailed(0, None) from error
            raise

    async def _row(self, letter: DeadLetter) -> StoredEvent:
        rows = await self._backend.log.scan(letter.position - 1, letter.position, 1, EventFilter())
        if not rows or rows[0].event_id != letter.event_id:
            raise HistoryDiverged(
                f"the event {letter.event_id} of a dead letter of projection {letter.projection!r} no longer stands at "
                f"position {letter.position}"
            )
        return rows[0]

    async def _record(self, key: str) -> ProjectionRecord | None:
        if self._closing:
            raise StoreClosed("the store was closed while it was waited for a projection")
        return next((record for record in await self._backend.ledger.projections() if record.name == key), None)


def _cancel(task: asyncio.Task[Any]) -> None:
    """Cancel once: a second time would end what it does to leave things in order."""
    if not task.cancelling():
        task.cancel()
