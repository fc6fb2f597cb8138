"""Running one projection: stand by, lead, and begin again after whatever passes."""

from __future__ import annotations

import asyncio
import contextvars
import os
import random
import secrets
import socket
from contextlib import suppress
from time import monotonic
from typing import Final, NoReturn, final

from eventcore.catalogue import ProjectionInstruments, ProjectionProgress
from eventcore.errors import AccessDenied, LeadershipLost, StoreError, StoreUnavailable
from eventcore.events.codec import Codec
from eventcore.exporting.logs import bounded_logger
from eventcore.projections.definition import Definition
from eventcore.projections.handling import Handling
from eventcore.projections.positions import Positions
from eventcore.projections.projector import Projector
from eventcore.stores.base import START, Backend, EventFilter, Lease
from eventcore.telemetry import Telemetry

_MAX_STANDBY: Final = 1.0
_BASE_DELAY: Final = 0.1
_MAX_DELAY: Final = 5.0
# Seconds of leading after which the failures before it are history.
_SETTLED: Final = 10.0
_STOP: Final = 5.0
_RELEASE: Final = 2.0
_logger: Final = bounded_logger("eventcore.projections")


@final
class Runner:
    """Runs a projection whenever no other runner does.

    Args:
        lease_seconds: how long the lease lasts when its holder falls silent; it is renewed at a third of that.
    """

    def __init__(
        self,
        backend: Backend,
        definition: Definition,
        codec: Codec,
        positions: Positions,
        instruments: ProjectionInstruments,
        telemetry: Telemetry,
        lease_seconds: float,
    ) -> None:
        self._backend = backend
        self._definition = definition
        self._positions = positions
        self._instruments = instruments
        self._telemetry = telemetry
        self._lease_seconds = lease_seconds
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._series = instruments.bind(definition.key)
        self._handling = Handling(definition, codec, self._series.handle, verbose=telemetry.verbosity == "verbose")
        self._progress = ProjectionProgress()
        # The furthest that any term of this runner has come.
        self._reached = START

    async def run(self) -> NoReturn:
        """Stand by and lead in turn, until cancelled.

        Raises:
            ProjectionFailed: an event cannot be applied, and the policy is to stop.
            HistoryDiverged: the event of the checkpoint is gone, or the last one that this runner has applied.
            StoreError: what does not pass by itself.
        """
        key, progress = self._definition.key, self._progress
        self._instruments.watch(key, progress)
        failures = 0
        try:
            while True:
                begun = monotonic()
                try:
                    lease = await self._acquire(key)
                    progress.tick()
                    await self._check_history(lease)
                    if lease is None:
                        progress.rest("paused")
                        failures = 0
                        await asyncio.sleep(random.uniform(0.5, 1.0) * min(_MAX_STANDBY, self._lease_seconds / 3))
                        continue
                    await self._lead(lease, begun)
                except StoreError as error:
                    if not _passes(error):
                        raise
                    if monotonic() - begun > _SETTLED:
                        failures = 0
                    failures += 1
                    self._series.failed(error)
                    _logger.warning("projection %r waits: %s: %s", key, type(error).__name__, error)
                progress.rest("paused")
                progress.tick()
                limit = min(_MAX_DELAY, _BASE_DELAY * 2.0 ** min(failures - 1, 10))
                await asyncio.sleep(random.uniform(limit / 2, limit))
        except asyncio.CancelledError:
            progress.rest("stopped")
            raise
        except BaseException as error:
            progress.rest("failed")
            if isinstance(error, StoreError):
                _logger.error("projection %r has failed: %s: %s", key, type(error).__name__, error)
            raise
        finally:
            self._instruments.ended(key, progress)

    async def _acquire(self, key: str) -> Lease | None:
        asking = asyncio.create_task(
            self._backend.ledger.acquire_lease(key, self._owner, self._lease_seconds),
            name=f"eventcore-lease-{key}",
            context=contextvars.Context(),
        )
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            # A lease that arrives now would be held by nobody until it runs out.
            with suppress(StoreError, TimeoutError):
                async with asyncio.timeout(_RELEASE):
                    if (lease := await asking) is not None:
                        await self._backend.ledger.release_lease(lease)
            raise

    async def _lead(self, lease: Lease, asked: float) -> None:
        """Project until that ends or the lease does; then give the lease back."""
        key = self._definition.key
        self._progress.lead(lease.checkpoint.position)
        projector = Projector(
            self._backend,
            self._definition,
            self._handling,
            lease,
            self._progress,
            self._positions,
            self._series,
            self._telemetry,
        )
        # In an empty context, so that the request that happened to start the projection is not the parent of all that follows.
        work = asyncio.create_task(projector.run(), name=f"eventcore-projection-{key}", context=contextvars.Context())
        keep = asyncio.create_task(self._keep(lease, asked), name=f"eventcore-lease-{key}", context=contextvars.Context())
        try:
            await asyncio.wait([work, keep], return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Which of the two has ended by itself is known before the other is made to.
            ended = work if work.done() else keep
            # Whether or not it is about to be cancelled by a time limit of its own, which would only end that.
            work.cancel()
            _, left = await asyncio.wait([work], timeout=_STOP)
            keep.cancel()
            await asyncio.wait([keep])
            if left:
                _logger.error("the handler of projection %r does not end when it is cancelled; it is left alone", key)
            self._positions.forget(key)
            if projector.reached.position > self._reached.position:
                self._reached = projector.reached
            await self._release(lease)
            for task in (work, keep):
                if task is not ended and task.done() and not task.cancelled():
                    # Read so that nobody complains that it was not.
                    task.exception()
        await ended

    async def _check_history(self, lease: Lease | None) -> None:
        """See that what was applied in terms before still stands: a store that has gone back has taken the checkpoint along.

        Whoever stands by looks, too: the one that leads now may have begun after that.
        """
        if self._reached != START:
            try:
                await self._backend.log.follow(self._reached, 1, EventFilter())
            except BaseException:  # also a cancellation: nobody would lead under the lease
                if lease is not None:
                    await self._release(lease)
                raise

    async def _keep(self, lease: Lease, asked: float) -> NoReturn:
        """Renew the lease at a third of its duration.

        Raises:
            LeadershipLost: it is another's, or could not be renewed in time.
        """
        seconds = self._lease_seconds
        valid_until = asked + seconds
        pause = seconds / 3
        while True:
            await asyncio.sleep(pause)
            asked = monotonic()
            try:
                async with asyncio.timeout(max(0.0, valid_until - asked)):
                    renewed = await self._backend.ledger.renew_lease(lease, seconds)
            except (StoreUnavailable, TimeoutError) as error:
                if monotonic() >= valid_until:
                    raise LeadershipLost(
                        f"the lease of projection {lease.projection!r} could not be renewed for {seconds:g} s"
                    ) from error
                pause = seconds / 12
                continue
            if not renewed:
                raise LeadershipLost(f"the lease of projection {lease.projection!r} is another runner's now")
            valid_until, pause = asked + seconds, seconds / 3

    async def _release(self, lease: Lease) -> None:
        # Who cannot give it back lets it run out.
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(_RELEASE):
                await self._backend.ledger.release_lease(lease)


def _passes(error: StoreError) -> bool:
    """Whether waiting helps: the store is away, another runner leads, or something that nobody knows has happened."""
    return isinstance(error, (StoreUnavailable, AccessDenied, LeadershipLost)) or type(error) is StoreError
