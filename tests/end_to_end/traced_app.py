"""A service as OpenTelemetry instruments it: FastAPI and asyncpg are traced by its libraries, commands by eventcore."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
from fastapi import FastAPI
from opentelemetry import trace

from eventcore import Command, Event, Projection, RecordedEvent, StreamId, logs, open_store

URL = os.environ["STORE_URL"]
tracer = trace.get_tracer("shop")


class OrderShipped(Event):
    country: str


class ShipOrder(Command[None]):
    order: StreamId
    country: str

    def handle(self, state: None) -> Iterator[tuple[StreamId, Event]]:
        with tracer.start_as_current_span("choose carrier"):
            yield self.order, OrderShipped(country=self.country)


class Shipped(Projection):
    name = "shipped"

    async def handle(self, event: RecordedEvent, transaction: Any) -> None:
        await transaction.execute("INSERT INTO shipped (position) VALUES ($1)", event.position)


store = open_store(URL)
logs.configure("json", telemetry=store.telemetry)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(URL, min_size=1, max_size=4) as pool, store:
        with tracer.start_as_current_span("start"):
            await pool.execute("CREATE TABLE IF NOT EXISTS shipped (position bigint PRIMARY KEY)")
        app.state.pool = pool
        projecting = asyncio.create_task(store.run(Shipped()))
        yield
        projecting.cancel()
        with suppress(asyncio.CancelledError):
            await projecting


app = FastAPI(lifespan=lifespan)


@app.post("/orders/{number}")
async def ship(number: int) -> dict[str, int]:
    logging.getLogger("shop").info("asked to ship", extra={"order": number})
    known = await app.state.pool.fetchval("SELECT count(*) FROM shipped")
    result = await store.execute(ShipOrder(order=StreamId(f"order-{number}"), country="FR"))
    await store.wait_for("shipped", result.position)
    return {"position": result.position, "known": known}
