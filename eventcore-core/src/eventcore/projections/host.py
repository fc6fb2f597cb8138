"""The projections of one open store: run them, wait for them, and retry their dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, final

from eventcore.catalogue import ProjectionInstruments, ProjectionProgress
from eventcore.errors import InvalidInput, ProjectionTimeout, StoreClosed
from eventcore.events.codec import Codec
from eventcore.ground import OwnedTask, cancel_and_wait, describe_error, spawn, type_name
from eventcore.projections.context import LocalPositions, RunContext
from eventcore.projections.definition import declared_keys, projection_key, unknown_name
from eventcore.projections.projection import Projection
from eventcore.stores.base import Backend
from eventcore.stores.values import DeadLetter
from eventcore.telemetry import Telemetry

if TYPE_CHECKING:
    from eventcore.projections.dead_letters import RetriedDeadLetters

# Seconds between reads of the checkpoint of a projection that another process runs; doubled after each read.
_FIRST_POLL: Final = 0.01
_LAST_POLL: Final = 0.1
_STOP_TIMEOUT: Final = 10.0


@final
class ProjectionHost:
    """Runs projections on one backend. Belongs to the event loop of the store."""

    def __init__(self, backend: Backend, codec: Codec, instruments: ProjectionInstruments, telemetry: Telemetry) -> None:
        self._backend = backend
        self._codec = codec
        self._instruments = instruments
        self._telemetry = telemetry
        self._positions = LocalPositions()
        self._tasks: set[OwnedTask[Any]] = set()
        # The names of all projections that this process has been given, also those without a record in the store so far.
        self._given: set[str] = set()
        self._stopping = False
        self._closing = False

    async def run(self, projection: Projection, lease_seconds: float) -> None:
        """See ``EventStore.run``."""
        # An application without projections never imports what runs them.
        from eventcore.projections.runner import Runner

        try:
            context = self._context(projection)
            if not isinstance(lease_seconds, (int, float)) or not 0.1 <= lease_seconds <= 3600:
                raise ValueError(f"lease={lease_seconds!r:.80}; expected seconds from 0.1 to 3600")
        except Exception as error:
            self._refused(projection, error)
            raise
        runner = Runner(context, self._instruments, lease_seconds)
        task = spawn(runner.run(), f"eventcore-run-{context.definition.key}")
        self._tasks.add(task)
        try:
            await asyncio.wait([task])
        finally:
            # The runner ends with this call, also when the caller is cancelled. A handler may keep it from ending in time; then
            # `close` waits for it again.
            if await cancel_and_wait(task, _STOP_TIMEOUT):
                self._tasks.discard(task)
        if task.cancelled() and self._stopping:
            return
        await task

    async def stop(self, timeout: float) -> bool:
        """Stop all projections and give their leases back, within ``timeout`` seconds; return whether all have ended."""
        self._stopping = True
        return all(await asyncio.gather(*(cancel_and_wait(task, timeout) for task in self._tasks)))

    async def close(self, timeout: float) -> None:
        """``stop``, and end the calls of ``wait_for``."""
        self._closing = True
        await self.stop(timeout)

    async def wait_for(self, projection: Projection | str, position: int, timeout: float) -> None:
        """See ``EventStore.wait_for``."""
        key = projection_key(projection)
        deadline = monotonic() + timeout
        pause = _FIRST_POLL
        while True:
            # While this process leads, its own position is exact and newer than the checkpoint in the store.
            if (reached := self._positions.get(key)) is None:
                reached = await self._stored_position(key)
                if reached is not None and reached >= position:
                    return
            else:
                pause = _LAST_POLL
            remaining = deadline - monotonic()
            # Woken at once when this process gets there. The pause is only a limit: another process may take the lead.
            if await self._positions.wait(key, position, max(0.0, min(remaining, pause))):
                return
            if remaining <= 0:
                where = await self._never_run(projection, key) if reached is None else f"it is at {reached}"
                raise ProjectionTimeout(f"projection {key!r} has not reached position {position} within {timeout:g} s: {where}")
            pause = min(_LAST_POLL, pause * 2)

    async def dead_letters(self, projection: Projection | str, limit: int) -> Sequence[DeadLetter]:
        """See ``EventStore.dead_letters``."""
        key = projection_key(projection)
        if not (letters := await self._backend.ledger.dead_letters(key, limit)):
            await self._check_known(projection, key)
        return letters

    async def reset(self, projection: Projection | str) -> None:
        """See ``EventStore.reset_projection``."""
        key = projection_key(projection)
        await self._check_known(projection, key)
        await self._backend.ledger.reset_projection(key)

    async def retry_dead_letters(self, projection: Projection) -> RetriedDeadLetters:
        """See ``EventStore.retry_dead_letters``."""
        from eventcore.projections.dead_letters import retry_dead_letters

        return await retry_dead_letters(self._context(projection))

    def _context(self, projection: Projection) -> RunContext:
        context = RunContext.of(projection, self._backend, self._codec, self._instruments, self._positions, self._telemetry)
        self._given.add(context.definition.key)
        return context

    def _refused(self, projection: Projection, error: Exception) -> None:
        """Log that a projection does not run, and show it in health: few applications look at the result of its task."""
        from eventcore.projections.runner import log_failed

        try:
            key = projection_key(projection)
        except Exception:  # noqa: BLE001  # the fault may be the name itself, or the object is no projection
            name = type_name(projection if isinstance(projection, type) else type(projection), qualified=True)
            log_failed(name, error)
            return
        progress = ProjectionProgress()
        progress.stand_by("failed")
        progress.problem = describe_error(error)
        self._instruments.watch(key, progress)
        self._instruments.ended(key, progress)
        log_failed(key, error)

    async def _stored_position(self, key: str) -> int | None:
        if self._closing:
            raise StoreClosed("the store was closed while wait_for was waiting for a projection")
        return (await self._stored()).get(key)

    async def _stored(self) -> dict[str, int]:
        return {record.name: record.checkpoint.position for record in await self._backend.ledger.projections()}

    async def _names_without(self, projection: Projection | str, key: str) -> set[str] | None:
        """The names that are known, if ``key`` was passed as a text and is none of them."""
        if not isinstance(projection, str) or key in self._given:
            return None
        # Declared names: a process may ask for a projection of its code before that has run anywhere.
        names = {*self._given, *declared_keys(), *await self._stored()}
        return None if key in names else names

    async def _check_known(self, projection: Projection | str, key: str) -> None:
        if (names := await self._names_without(projection, key)) is not None:
            raise InvalidInput(f"there is no projection {key!r} in the store or in this process; {unknown_name(key, names)}")

    async def _never_run(self, projection: Projection | str, key: str) -> str:
        names = await self._names_without(projection, key)
        return "it has never run" if names is None else f"it has never run; {unknown_name(key, names)}"
