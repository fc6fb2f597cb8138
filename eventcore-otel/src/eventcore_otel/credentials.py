"""Credentials that change while the exporter runs: headers from a callable, and certificate files."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from eventcore.exporting import RetryLater
from eventcore_otel.connection import GetHeaders
from eventcore_otel.settings import Tls, header

Metadata: TypeAlias = tuple[tuple[str, str], ...]

_MAX_REASON: Final = 200


class LiveHeaders:
    """The headers that a callable returns.

    The callable runs in a thread of its own, one call at a time, so that one that hangs costs an
    attempt to send no more than its timeout. A coroutine function runs there on an event loop of
    its own.

    Only the pipeline's worker thread calls the methods.

    Args:
        ask: returns the headers, or an awaitable of them.
        lifetime: seconds for which they are used; ``None``: until ``expire`` is called.
    """

    def __init__(self, ask: GetHeaders, lifetime: float | None) -> None:
        self._ask = ask
        self._lifetime = lifetime
        self._metadata: Metadata | None = None
        self._asked_at = 0.0
        self._pending: _Answer | None = None

    def current(self, timeout: float) -> Metadata:
        """The headers to send now.

        Raises:
            RetryLater: the callable raised, returned no headers, or did not return within
                ``timeout`` seconds. The message contains no header's value.
        """
        age = time.monotonic() - self._asked_at
        if self._metadata is None or (self._lifetime is not None and age >= self._lifetime):
            self._metadata = self._fetch(timeout)
            self._asked_at = time.monotonic()
        return self._metadata

    def expire(self) -> None:
        """Ask again before the next request: the receiver has refused these headers."""
        self._metadata = None

    def _fetch(self, timeout: float) -> Metadata:
        # A call that did not return in time may return later: its answer is then used, and no second call is made beside it.
        answer = self._pending or _Answer(self._ask)
        self._pending = answer
        if not answer.done.wait(max(0.0, timeout)):
            raise RetryLater(reason=f"headers: the callable has not returned within {timeout:.3g} s")
        self._pending = None
        if answer.error is not None:
            problem = f"{type(answer.error).__name__}: {' '.join(str(answer.error).split())}"[:_MAX_REASON]
            raise RetryLater(reason=f"headers: the callable raised {problem}") from answer.error
        is_mapping = isinstance(answer.value, Mapping)
        if not is_mapping:
            raise RetryLater(reason=f"headers: the callable returned {type(answer.value).__name__}; expected a mapping")
        values: Mapping[Any, Any] = answer.value
        try:
            pairs = [header(name, value, "headers") for name, value in values.items()]
        except ValueError as error:
            raise RetryLater(reason=str(error)) from error
        return tuple((name, secret.reveal()) for name, secret in pairs)


class _Answer:
    """One call of the callable, in a thread."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self.done = threading.Event()
        self._ask = ask
        threading.Thread(target=self._run, name="eventcore-otel-headers", daemon=True).start()

    def _run(self) -> None:
        try:
            value = self._ask()
            self.value = asyncio.run(_result(value)) if inspect.isawaitable(value) else value
        except BaseException as error:  # noqa: BLE001  # whatever it raises, the exporter must hear of it
            self.error = error
        finally:
            self.done.set()


async def _result(value: Any) -> Any:
    return await value


class CertificateFiles:
    """The contents of PEM files, and whether the files have changed since they were read.

    Args:
        tls: the paths.

    Raises:
        ValueError: a file cannot be read.
    """

    def __init__(self, tls: Tls) -> None:
        self._paths = {
            "certificate": tls.certificate,
            "client_key": tls.client_key,
            "client_certificate": tls.client_certificate,
        }
        self._state = self._look()
        self.contents = self._read()

    def reload(self) -> bool:
        """Read the files again if they have changed; returns whether they have.

        Raises:
            ValueError: a file cannot be read. The contents of before stay, and the next call tries
                again.
        """
        if (state := self._look()) == self._state:
            return False
        self.contents = self._read()
        self._state = state
        return True

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_state_of(path) for path in self._paths.values())

    def _read(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        certificate, key, chain = (_pem(parameter, path) for parameter, path in self._paths.items())
        return certificate, key, chain


def _state_of(path: str | None) -> tuple[int, int, int] | None:
    if path is None:
        return None
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _pem(parameter: str, path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{parameter}={path!r}: cannot be read ({error.strerror}); expected a file in PEM format") from error
