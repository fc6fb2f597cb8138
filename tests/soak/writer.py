"""A process that executes commands, several at once, and logs each command and its outcome."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from eventcore import CommandResult, EventStore, RetryPolicy
from eventcore.errors import (
    BusinessRuleViolation,
    CommandTimeout,
    ConcurrencyConflict,
    HistoryDiverged,
    InvalidInput,
    StoreClosed,
    StoreUnavailable,
)
from tests.soak.domain import Noted, SoakCommand, choose
from tests.soak.logs import Acknowledged, Begun, Failed, LineLog, Redacted, now
from tests.soak.worker import opened

_AT_ONCE: Final = 3
_MAX_PAUSE: Final = 0.1
_RETRY: Final = RetryPolicy(attempts=20)


async def write(url: str, path: Path, seed: int, stop: asyncio.Event) -> None:
    """Execute commands until ``stop``."""
    log = LineLog(path)
    async with opened(url, stop) as store:
        if store is not None:
            await asyncio.gather(
                *(_execute_many(store, log, f"{path.stem}.{number}", seed, stop) for number in range(_AT_ONCE))
            )
    log.close()


async def _execute_many(store: EventStore, log: LineLog, name: str, seed: int, stop: asyncio.Event) -> None:
    choice = random.Random(f"{name} {seed}")
    number = 0
    while not stop.is_set():
        number += 1
        command = choose(f"{name}.{number}", choice)
        log.add(Begun(command.id, type(command).__name__))
        try:
            result = await _execute(store, command, choice)
        except (BusinessRuleViolation, ConcurrencyConflict, StoreClosed) as error:
            log.add(Failed(command.id, type(error).__name__, uncertain=False))
        except (CommandTimeout, StoreUnavailable) as error:
            log.add(Failed(command.id, type(error).__name__, uncertain=error.may_have_committed))
        else:
            if result is None:
                log.add(Failed(command.id, "cancelled", uncertain=True))
            else:
                events = [(event.position, event.event_id, str(event.stream_id), event.version) for event in result.events]
                log.add(Acknowledged(command.id, events, result.attempts, now()))
                await _redact(store, log, result, choice)
        await asyncio.sleep(choice.uniform(0, _MAX_PAUSE))


async def _redact(store: EventStore, log: LineLog, result: CommandResult, choice: random.Random) -> None:
    """Remove every second large text again."""
    for event in result.events:
        if isinstance(event.data, Noted) and event.data.text and choice.random() < 0.5:
            data = msgspec.structs.replace(event.data, text="")
            # After a failover, the event may be lost, also while it is looked for.
            with suppress(StoreUnavailable, CommandTimeout, StoreClosed, InvalidInput, HistoryDiverged):
                await store.redact(event.event_id, data=data, reason="soak")
                log.add(Redacted(event.event_id, now()))


async def _execute(store: EventStore, command: SoakCommand, choice: random.Random) -> CommandResult | None:
    """Execute a command: 92 of 100 normally, 4 with a timeout of milliseconds, 4 cancelled after milliseconds.

    Returns:
        The result, or ``None`` if the command was cancelled first.
    """
    share, moment = choice.random(), choice.uniform(0.001, 0.03)
    if share < 0.92:
        return await store.execute(command, retry=_RETRY)
    if share < 0.96:
        return await store.execute(command, retry=_RETRY, timeout=moment)
    running = asyncio.create_task(store.execute(command, retry=_RETRY))
    await asyncio.wait([running], timeout=moment)
    running.cancel()
    try:
        return await running
    except asyncio.CancelledError:
        return None
