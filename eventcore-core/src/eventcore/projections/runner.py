"""Runs one projection while its store is open: wait for the lease, lead, and start again after an error that passes."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from time import perf_counter
from typing import Final, NoReturn, final

import msgspec

from eventcore.catalogue import ProjectionInstruments
from eventcore.errors import AccessDenied, LeadershipLost, StoreError, StoreUnavailable
from eventcore.exporting.logs import bounded_logger
from eventcore.ground import backoff, cancel_and_wait, describe_error, spawn, without_values
from eventcore.projections.context import RunContext
from eventcore.projections.definition import check_filter, filter_text
from eventcore.projections.handler import LeaseHold
from eventcore.projections.projector import Projector
from eventcore.stores.values import START, EventFilter, Lease

# Longest pause in seconds between two attempts to get a lease that another runner holds.
_MAX_STANDBY: Final = 1.0
# Limits in seconds of the pause after an error.
_FIRST_PAUSE: Final = 0.1
_MAX_PAUSE: Final = 5.0
# Seconds of leading after which an error counts as the first one again.
_FORGET_FAILURES_AFTER: Final = 10.0
# Seconds of leading after which a projection that has waited is said to go on.
_GOES_ON_AFTER: Final = 1.0
_STOP_TIMEOUT: Final = 5.0
_RELEASE_TIMEOUT: Final = 2.0
_logger: Final = bounded_logger("eventcore.projections")


@final
class Runner:
    """Runs a projection whenever no other runner does. Its ``run`` is called once, in a separate task.

    Args:
        lease_seconds: how long a lease is valid. It is renewed after a third of that.
    """

    def __init__(self, context: RunContext, instruments: ProjectionInstruments, lease_seconds: float) -> None:
        self._context = context
        self._backend = context.backend
        self._key = context.definition.key
        self._progress = context.progress
        self._instruments = instruments
        self._lease_seconds = lease_seconds
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        # The last event that this runner has applied, under whichever lease.
        self._applied = START

    async def run(self) -> NoReturn:
        """Wait for the lease and lead, again and again, until the task is cancelled.

        Raises:
            ProjectionFailed: an event cannot be applied, and the policy is to stop.
            HistoryDiverged: the event of the checkpoint, or the last event that this runner has applied, is not in the store.
            StoreError: the store has failed, and waiting will not help.
        """
        key, progress = self._key, self._progress
        self._instruments.watch(key, progress)
        failures, records = 0, _WaitRecords(key)
        try:
            while True:
                begun = perf_counter()
                try:
                    lease = await self._acquire(key)
                    progress.tick()
                    await self._check_history(lease)
                    if lease is None:
                        progress.stand_by("paused")
                        failures = 0
                        records.stands_by(self._lease_seconds)
                        await asyncio.sleep(random.uniform(0.5, 1.0) * min(_MAX_STANDBY, self._lease_seconds / 3))
                        continue
                    await self._check_filter(lease)
                    with records.leading():
                        await self._lead(lease, begun)
                except StoreError as error:
                    if not _passes(error):
                        raise
                    if perf_counter() - begun > _FORGET_FAILURES_AFTER:
                        failures = 0
                    failures += 1
                    self._context.series.failed(error)
                    progress.problem = describe_error(error)
                    records.waits(error, progress.problem)
                progress.stand_by("paused")
                progress.tick()
                await asyncio.sleep(backoff(failures, _FIRST_PAUSE, _MAX_PAUSE))
        except asyncio.CancelledError:
            progress.stand_by("stopped")
            raise
        except BaseException as error:
            progress.stand_by("failed")
            # What a handler or the database says may repeat the event or a row: logs and health are no place for these.
            stand_in = without_values(error)
            progress.problem = describe_error(stand_in)
            if isinstance(error, Exception):
                log_failed(key, stand_in)
            raise
        finally:
            self._instruments.ended(key, progress)

    async def _acquire(self, key: str) -> Lease | None:
        acquiring = spawn(self._backend.ledger.acquire_lease(key, self._owner, self._lease_seconds), f"eventcore-lease-{key}")
        try:
            return await asyncio.shield(acquiring)
        except asyncio.CancelledError:
            # The call may still get the lease. Give it back, or no other runner could lead until it expires.
            with suppress(StoreError, TimeoutError):
                async with asyncio.timeout(_RELEASE_TIMEOUT):
                    if (lease := await acquiring) is not None:
                        await self._backend.ledger.release_lease(lease)
            raise

    async def _check_history(self, lease: Lease | None) -> None:
        """Check that the last event which this runner has applied is still in the store.

        A store that has gone back in time has taken the checkpoint back as well, so the checkpoint alone does not show it. A
        runner that does not get the lease checks too: the runner that leads may never have applied a lost event.
        """
        if self._applied != START:
            try:
                await self._backend.log.follow(self._applied, 1, EventFilter())
            except BaseException:  # also CancelledError: the lease must not stay behind
                if lease is not None:
                    await self._release(lease)
                raise

    async def _check_filter(self, lease: Lease) -> None:
        """Check that the filter selects nothing that was left out before the checkpoint, and keep it with the checkpoint."""
        wanted, state = self._context.definition.filter, lease.state
        try:
            if state.filter and lease.checkpoint != START:
                check_filter(self._key, wanted, state.filter)
            if (text := filter_text(wanted)) != state.filter:
                state = msgspec.structs.replace(state, filter=text)
                await self._backend.ledger.save_run_state(lease, state)
        except BaseException:  # also CancelledError: the lease must not stay behind
            await self._release(lease)
            raise

    async def _lead(self, lease: Lease, requested_at: float) -> None:
        """Project under ``lease`` until an error ends that, and give the lease back.

        Two tasks run: one projects, one renews the lease. The first to end decides the outcome. If the lease is lost while the
        handler still runs, another runner may apply the same events for a moment. The checkpoint is safe, since the store
        refuses commits under an old lease. What a handler writes outside of its transaction is not.
        """
        key = self._key
        _logger.info("this process runs projection %r now, from position %d", key, lease.checkpoint.position)
        self._progress.start_leading(lease.checkpoint.position)
        hold = LeaseHold(lease.token, requested_at + self._lease_seconds)
        lease = msgspec.structs.replace(
            lease, state=msgspec.structs.replace(lease.state, filter=filter_text(self._context.definition.filter))
        )
        projector = Projector(self._context, lease, hold)
        projecting = spawn(projector.run(), f"eventcore-projection-{key}")
        renewing = spawn(self._renew_until_lost(lease, hold), f"eventcore-lease-{key}")
        try:
            await asyncio.wait([projecting, renewing], return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Look which task has ended by itself before both are cancelled.
            first = projecting if projecting.done() else renewing
            # The lease is renewed until the projector has committed what it applied.
            if not await cancel_and_wait(projecting, _STOP_TIMEOUT):
                _logger.error("the handler of projection %r does not end when it is cancelled; it is left alone", key)
            await cancel_and_wait(renewing)
            self._context.positions.forget(key)
            if projector.applied.position > self._applied.position:
                self._applied = projector.applied
            await self._release(lease)
            _logger.info("this process no longer runs projection %r; it has reached position %d", key, self._applied.position)
        await first

    async def _renew_until_lost(self, lease: Lease, hold: LeaseHold) -> NoReturn:
        """Renew the lease after each third of its duration, after errors sooner.

        The time of a renewal counts from before the call, so that this process never believes in the lease longer than the
        store does.

        Raises:
            LeadershipLost: another runner has the lease, or it could not be renewed in time.
        """
        seconds = self._lease_seconds
        pause = seconds / 3
        while True:
            await asyncio.sleep(pause)
            requested_at = perf_counter()
            try:
                async with asyncio.timeout(max(0.0, hold.valid_until - requested_at)):
                    renewed = await self._backend.ledger.renew_lease(lease, seconds)
            except (StoreUnavailable, TimeoutError) as error:
                if perf_counter() >= hold.valid_until:
                    raise LeadershipLost(
                        f"the lease of projection {lease.projection!r} could not be renewed for {seconds:g} s"
                    ) from error
                pause = seconds / 12
                continue
            if not renewed:
                raise LeadershipLost(f"another runner has the lease of projection {lease.projection!r}")
            hold.valid_until, pause = requested_at + seconds, seconds / 3

    async def _release(self, lease: Lease) -> None:
        # If this fails, other runners wait until the lease expires.
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(_RELEASE_TIMEOUT):
                await self._backend.ledger.release_lease(lease)


def log_failed(projection: str, error: BaseException) -> None:
    """Log why a projection does not run. ``error`` repeats no value of an event."""
    _logger.error("projection %r has failed and does not run any more: %s", projection, describe_error(error), exc_info=error)


@final
class _WaitRecords:
    """The log records of a projection that waits: one for each kind of problem, and one when it goes on."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._kind: type[StoreError] | None = None
        # When the first attempt failed, and the last one.
        self._since = self._last = 0.0

    def waits(self, error: StoreError, problem: str) -> None:
        """Note that an attempt has failed."""
        self._last = perf_counter()
        if self._kind is None:
            self._since = self._last
        if type(error) is not self._kind:
            self._kind = type(error)
            _logger.warning("projection %r waits: %s", self._key, problem)

    def stands_by(self, lease_seconds: float) -> None:
        """Note that another runner has the lease. It is alive if the lease is younger than the last failure."""
        if self._kind is not None and perf_counter() - self._last > lease_seconds:
            self._kind = None
            _logger.warning(
                "projection %r is run by another process; this one, which stands by, has reached the store again after %.1f s",
                self._key,
                perf_counter() - self._since,
            )

    @contextmanager
    def leading(self) -> Generator[None]:
        """While the projection leads. It may fail at once again, so what goes on is said a moment later."""
        soon = asyncio.get_running_loop().call_later(_GOES_ON_AFTER, self._goes_on)
        try:
            yield
        finally:
            soon.cancel()

    def _goes_on(self) -> None:
        if self._kind is not None:
            self._kind = None
            _logger.warning("projection %r goes on after %.1f s", self._key, perf_counter() - self._since)


def _passes(error: StoreError) -> bool:
    """Whether to wait and try again: the store is away, another runner leads, or the error is of no known kind."""
    return isinstance(error, (StoreUnavailable, AccessDenied, LeadershipLost)) or type(error) is StoreError
