"""Plugins whose exceptions harm whoever looks at them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, NoReturn

from eventcore.exporting import Exporter, Secret, hookimpl


class Hostile(Exception):
    """Everything that one may ask of it raises."""

    def __str__(self) -> str:
        raise SystemExit("from __str__")

    def __repr__(self) -> str:
        raise KeyboardInterrupt

    __cause__ = property(lambda self: 1 / 0)  # type: ignore[assignment]  # that it raises is the point


class HostileValueError(Hostile, ValueError): ...


class Sink(Exporter):
    @hookimpl
    def export_counters(self, counters: Any, timeout: float) -> None: ...


def made_hostile() -> NoReturn:
    raise Hostile


def made_huge() -> NoReturn:
    raise RuntimeError("x" * 20_000_000)


def made_interrupted() -> NoReturn:
    raise KeyboardInterrupt


def made_cancelled() -> NoReturn:
    raise asyncio.CancelledError


def made_exit() -> NoReturn:
    raise SystemExit(Hostile())


def refused_hostile(port: int) -> NoReturn:
    raise HostileValueError


class AttributeExits(Sink):
    @property
    def interval(self) -> float:  # type: ignore[override]  # a property is the point
        raise SystemExit(3)


class AttributeHostile(Sink):
    @property
    def interval(self) -> float:  # type: ignore[override]  # a property is the point
        raise Hostile


def signature_hostile(port: made_exit() = 1) -> None: ...  # type: ignore[valid-type]


class ShowsSecret(Sink):
    """Refuses its settings, and shows all of them."""

    def __init__(self, token: Secret, headers: dict[str, Secret] | None = None, endpoint: str = "", port: int = 1) -> None:
        shown = [token.reveal(), *(value.reveal() for value in (headers or {}).values()), endpoint, port]
        raise ValueError(f"cannot use {shown}: {int(token.reveal())}")


class BreaksWithSecret(Sink):
    def __init__(self, token: Secret) -> None:
        raise RuntimeError(f"401 for {token.reveal()}")


class KeepsAThread(Sink):
    """Starts a thread that is no daemon and never ends."""

    def __init__(self) -> None:
        threading.Thread(target=threading.Event().wait).start()


class SlowPage(Sink):
    """A pull exporter whose page never comes."""

    interval = None

    @property
    def url(self) -> str:
        threading.Event().wait()
        return ""
