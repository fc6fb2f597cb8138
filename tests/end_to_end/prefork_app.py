"""A service for pre-fork servers. Everything is made when the module is imported: with ``--preload`` before the fork."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from eventcore import StreamId, Telemetry, open_store
from tests.store.bank import Deposit

telemetry = Telemetry()
if os.environ.get("START_BEFORE_FORK"):
    telemetry.start_blocking()
    telemetry.counter("parent.only").add(1)
store = open_store(os.environ["STORE_URL"], telemetry=telemetry)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    await telemetry.start()
    async with store:
        yield
    if not (report := await telemetry.shutdown(10)):
        logging.getLogger("uvicorn.error").error("not delivered: %s", report)


app = FastAPI(lifespan=lifespan)


@app.post("/deposits/{account}")
async def deposit(account: str) -> dict[str, int]:
    result = await store.execute(Deposit(account=StreamId(account), amount=1))
    return {"pid": os.getpid(), "position": result.position}
