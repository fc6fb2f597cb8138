"""Releases of the example service with a fault in them, for the incidents of the stack. Each is a factory for uvicorn."""

from __future__ import annotations

import contextvars
import itertools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response

from eventcore import Event, StreamId, logs, open_store
from eventcore.health import asgi_app
from examples.service.app import Amount, TransferRequest, create_app
from examples.service.domain import Balances, Deposit, Transfer, account
from examples.service.problems import answer_problems


def failing() -> FastAPI:
    """Every nth transfer raises: a mistake that shows with some data only. ``BANK_FAILS_EVERY`` is n."""
    every, transfers, handle = int(os.environ["BANK_FAILS_EVERY"]), itertools.count(1), Transfer.handle

    def with_fee(self: Transfer, state: Balances) -> Iterable[tuple[StreamId, Event]]:
        if next(transfers) % every == 0:
            raise KeyError("fee")
        return handle(self, state)

    Transfer.handle = with_fee  # type: ignore[method-assign]
    return create_app()


def blocking() -> FastAPI:
    """Every fifth deposit asks another service, and forgets to await the answer."""
    deposits, handle = itertools.count(1), Deposit.handle

    def ask(self: Deposit, state: None) -> Iterable[tuple[StreamId, Event]]:
        if next(deposits) % 5 == 0:
            time.sleep(0.8)
        return handle(self, state)

    Deposit.handle = ask  # type: ignore[method-assign]
    return create_app()


def type_for_each_request() -> FastAPI:
    """Every request executes a command whose class, and so the label ``command.type``, is its own."""
    app = create_app()

    async def audit(number: int) -> None:
        kind = type(f"AuditOf{number}", (Deposit,), {"__module__": __name__})
        await app.state.store.execute(kind(account=account("audit"), amount=1))

    _with_each_request(app, audit)
    return app


def chatty() -> FastAPI:
    """Every request records a span for each of two hundred rows, and thirty traces of their own."""
    app = create_app()

    async def trace(_: int) -> None:
        telemetry = app.state.store.telemetry
        for _ in range(200):
            with telemetry.span("row"):
                pass
        for _ in range(30):
            contextvars.Context().run(_trace_alone, telemetry)

    _with_each_request(app, trace)
    return app


def _trace_alone(telemetry: Any) -> None:
    with telemetry.span("row of nobody"):
        pass


def _with_each_request(app: FastAPI, work: Callable[[int], Awaitable[None]]) -> None:
    numbers = itertools.count(1)

    @app.middleware("http")
    async def also(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        answered = await answer(request)
        if request.method == "POST":
            await work(next(numbers))
        return answered


def on_a_file() -> FastAPI:
    """The bank with its events in a file, ``BANK_FILE``, and without a read model."""
    logs.configure("json")
    store = open_store(f"sqlite:///{os.environ['BANK_FILE']}", name="bank", timeout=5.0)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with store:
            yield

    app = FastAPI(title="Bank", lifespan=lifespan)
    answer_problems(app)
    app.mount("/health", asgi_app(store))

    @app.post("/accounts/{name}/deposits", status_code=201)
    async def deposit(name: str, body: Amount) -> None:
        await store.execute(Deposit(account=account(name), amount=body.amount))

    @app.post("/transfers", status_code=201)
    async def transfer(body: TransferRequest) -> None:
        await store.execute(Transfer(source=account(body.source), target=account(body.target), amount=body.amount))

    return app


__all__ = ["blocking", "chatty", "failing", "on_a_file", "type_for_each_request"]
