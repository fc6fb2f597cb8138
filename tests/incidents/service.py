"""The example service, with requests that bring about what happens inside a process. uvicorn serves ``create_app``.

``BANK_ON_ERROR=stop`` makes the projection stop at an event that it cannot apply, in place of keeping it as a dead letter.
"""

from __future__ import annotations

import os

from fastapi import FastAPI

from eventcore import OnError
from examples.service.app import create_app as create_bank
from examples.service.balances import BalanceTable
from examples.service.domain import account
from tests.incidents.injecting import Reckon, block_the_event_loop, execute_many_types


def create_app() -> FastAPI:
    """The application of one worker process."""
    if os.environ.get("BANK_ON_ERROR") == "stop":
        BalanceTable.on_error = OnError(retries=1, then="stop")
    app = create_bank()

    @app.post("/incidents/block")
    async def block(seconds: float) -> None:
        block_the_event_loop(seconds)

    @app.post("/incidents/reckon")
    async def reckon(seconds: float) -> None:
        await app.state.store.execute(Reckon(account=account("slow"), amount=1, seconds=seconds))

    @app.post("/incidents/types")
    async def types(count: int) -> None:
        await execute_many_types(app.state.store, count)

    return app
