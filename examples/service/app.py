"""The web application. ``uvicorn --factory examples.service.app:create_app --workers 2`` serves it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import asyncpg
from fastapi import FastAPI, Header, HTTPException, Query
from pydantic import BaseModel, PositiveInt

from eventcore import CommandResult, EventStore, logs, open_store
from eventcore.errors import EventCoreError
from eventcore.health import asgi_app
from examples.service.balances import TABLE, BalanceTable
from examples.service.domain import Deposit, Transfer, account
from examples.service.draining import draining_on_sigterm
from examples.service.problems import answer_problems
from examples.service.settings import Settings

_logger = logging.getLogger(__name__)
Key = Annotated[str | None, Header(alias="Idempotency-Key")]


class Amount(BaseModel):
    amount: PositiveInt


class TransferRequest(BaseModel):
    source: str
    target: str
    amount: PositiveInt


class Done(BaseModel):
    position: int


class Balance(BaseModel):
    account: str
    balance: int


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application of one worker process. Nothing is opened before its lifespan begins, so it may be made before a fork."""
    settings = settings or Settings.from_environment()
    # One JSON object a line, with the trace, the store and the command that a record belongs to, and without secrets.
    logs.configure(settings.log_format)
    store = open_store(settings.database, name="bank", open_timeout=settings.open_timeout, timeout=5.0)
    # Once more: where OpenTelemetry instruments the service, records outside of commands have the trace of their request, too.
    logs.configure(settings.log_format, telemetry=store.telemetry)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with store, asyncpg.create_pool(settings.database.partition("?")[0], min_size=1, max_size=4) as pool:
            await _create_table(pool)
            app.state.pool, app.state.store = pool, store
            projection = asyncio.create_task(_run_projection(store), name="balances")
            # Checked like the store itself: without the pool, no balance can be read.
            store.add_health_check("read_model", lambda: _ask(pool), essential=True)
            with draining_on_sigterm(store, settings.drain_delay, settings.drain_timeout):
                yield
            # The server has answered its last request, or was stopped without SIGTERM.
            await store.drain(settings.drain_timeout)
            await projection

    app = FastAPI(title="Bank", lifespan=lifespan)
    answer_problems(app)
    app.mount("/health", asgi_app(store))

    @app.post("/accounts/{name}/deposits", status_code=201)
    async def deposit(name: str, body: Amount, key: Key = None) -> Done:
        command = Deposit(account=account(name), amount=body.amount)
        return _done(await store.execute(command, idempotency_key=key))

    @app.post("/transfers", status_code=201)
    async def transfer(body: TransferRequest, key: Key = None) -> Done:
        command = Transfer(source=account(body.source), target=account(body.target), amount=body.amount)
        return _done(await store.execute(command, idempotency_key=key))

    @app.get("/accounts/{name}")
    async def balance(name: str, after: Annotated[int | None, Query(ge=0)] = None) -> Balance:
        """The balance; with ``after``, the position of a command, one that includes that command."""
        if after is not None:
            await store.wait_for("balances", after, timeout=2.0)
        found = await app.state.pool.fetchval("SELECT balance FROM balances WHERE account = $1", name)
        if found is None:
            raise HTTPException(404, f"there is no account {name!r:.80}")
        return Balance(account=name, balance=found)

    return app


def _done(result: CommandResult) -> Done:
    return Done(position=result.position)


async def _create_table(pool: Any) -> None:
    # Several workers start at the same time, and CREATE TABLE IF NOT EXISTS does not stand that without a lock.
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('bank.balances'))")
        await connection.execute(TABLE)


async def _ask(pool: Any) -> None:
    await pool.fetchval("SELECT 1", timeout=1.0)


async def _run_projection(store: EventStore) -> None:
    """Every worker runs this; one of them leads, and another takes over when it ends. It returns when the store drains."""
    try:
        await store.run(BalanceTable())
    except EventCoreError:
        # The health of the store says so until somebody has mended it; commands go on.
        _logger.error("the projection of balances has ended: see the record of eventcore.projections before this one")
