"""What the parts of a running projection share, and the positions for which ``EventStore.wait_for`` waits."""

from __future__ import annotations

import asyncio
from typing import final

import msgspec

from eventcore.catalogue import ProjectionInstruments, ProjectionProgress, ProjectionSeries
from eventcore.events.codec import Codec
from eventcore.projections.definition import Definition
from eventcore.projections.handler import Handler
from eventcore.projections.projection import Projection
from eventcore.stores.base import Backend
from eventcore.telemetry import Telemetry


@final
class LocalPositions:
    """The position of each projection that this process leads. Belongs to the event loop of the store."""

    def __init__(self) -> None:
        self._positions: dict[str, int] = {}
        self._waiting: dict[str, set[tuple[int, asyncio.Future[None]]]] = {}

    def get(self, projection: str) -> int | None:
        """The position of a projection, ``None`` when this process does not lead it."""
        return self._positions.get(projection)

    def advance(self, projection: str, position: int) -> None:
        """Every event up to ``position`` is applied: wake the callers of ``wait`` that wait for it."""
        self._positions[projection] = position
        if waiting := self._waiting.get(projection):
            for target, future in waiting:
                if target <= position and not future.done():
                    future.set_result(None)

    def forget(self, projection: str) -> None:
        """This process no longer leads the projection."""
        self._positions.pop(projection, None)

    async def wait(self, projection: str, position: int, timeout: float) -> bool:
        """Wait until this process has applied ``position``; false after ``timeout`` seconds."""
        if self._positions.get(projection, -1) >= position:
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(projection, set())
        waiting.add((position, future))
        try:
            await asyncio.wait([future], timeout=timeout)
            return future.done()
        finally:
            waiting.discard((position, future))
            # Another caller may have removed the empty set already, and a third may have begun a new one.
            if not waiting and self._waiting.get(projection) is waiting:
                del self._waiting[projection]


@final
class AttemptMemory:
    """The last attempt that this process has written down before it began (``LostAttempts``).

    Attributes:
        position: the position of the event.
        lost: how many attempts at it were lost before.
    """

    __slots__ = ("lost", "position")

    def __init__(self) -> None:
        self.position = 0
        self.lost = 0


@final
class RunContext(msgspec.Struct, frozen=True):
    """One projection as this process runs it: what its runner, projector and batches share."""

    backend: Backend
    definition: Definition
    handler: Handler
    positions: LocalPositions
    progress: ProjectionProgress
    series: ProjectionSeries
    telemetry: Telemetry
    attempts: AttemptMemory

    @classmethod
    def of(
        cls,
        projection: Projection,
        backend: Backend,
        codec: Codec,
        instruments: ProjectionInstruments,
        positions: LocalPositions,
        telemetry: Telemetry,
    ) -> RunContext:
        """Check ``projection``, and bind it to one store. Raises ``InvalidProjection`` as ``Definition.of`` does."""
        definition = Definition.of(projection, backend.system)
        series = instruments.bind(definition.key)
        handler = Handler(definition, codec, series.handle, verbose=telemetry.verbosity == "verbose")
        return cls(backend, definition, handler, positions, ProjectionProgress(), series, telemetry, AttemptMemory())
