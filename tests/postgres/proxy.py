"""A way to the server that can be cut at the worst moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

__all__ = ["Proxy"]


class Proxy:
    """Passes bytes between clients and one server.

    Attributes:
        url: the store's URL by way of this proxy.
        cut_request: asked of each call that carries ``mark`` whether the connection is cut as soon as it is passed on.
        cut_answer: asked of each answer to a call that carries ``mark`` whether the connection is cut in place of it.
        hold_answer: asked of each of those how many seconds it comes late.
        silent: while true, answers are swallowed and connections stay open.
        deaf: while true, requests are swallowed and connections stay open.
        unheard: how many calls that carry ``mark`` were swallowed.
        refusing: while true, new connections are closed at once.
        frozen: how many of the first connections pass nothing any more, not even that their client has closed them.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._parts = parts
        self._listener: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.url = ""
        self.mark = b""
        self.cut_request: Callable[[], bool] = lambda: False
        self.cut_answer: Callable[[], bool] = lambda: False
        self.hold_answer: Callable[[], float] = lambda: 0.0
        self.cuts = 0
        self.silent = False
        self.deaf = False
        self.unheard = 0
        self.refusing = False
        self.frozen = 0
        self._count = 0
        self._ended = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def before(cls, url: str) -> AsyncIterator[Proxy]:
        """A proxy before the server of a URL."""
        proxy = cls(url)
        proxy._listener = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
        port = proxy._listener.sockets[0].getsockname()[1]
        address = f"{proxy._parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}"
        proxy.url = proxy._parts._replace(netloc=address).geturl()
        try:
            yield proxy
        finally:
            proxy._listener.close()
            proxy._ended.set()
            proxy.cut_all()
            await proxy._listener.wait_closed()

    def cut_all(self) -> None:
        """Cut every connection."""
        for writer in self._writers:
            writer.transport.abort()

    def freeze_all(self) -> None:
        """Freeze every connection that exists now."""
        self.frozen = self._count

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        try:
            to_server, upstream = await asyncio.open_connection(*self._server)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, upstream}
        number = self._count
        self._count += 1
        marked = False

        async def requests() -> None:
            nonlocal marked
            while data := await reader.read(1 << 16):
                if self.deaf or number < self.frozen:
                    self.unheard += bool(self.mark and self.mark in data)
                    continue
                now_marked = bool(self.mark and self.mark in data)
                marked = marked or now_marked
                upstream.write(data)
                await upstream.drain()
                if now_marked and self.cut_request():
                    self.cuts += 1
                    return
            if number < self.frozen:
                await self._ended.wait()

        async def answers() -> None:
            nonlocal marked
            while data := await to_server.read(1 << 16):
                if self.silent or number < self.frozen:
                    continue
                if marked:
                    if self.cut_answer():
                        self.cuts += 1
                        return
                    if seconds := self.hold_answer():
                        await asyncio.sleep(seconds)
                marked = False
                writer.write(data)
                await writer.drain()

        both = [asyncio.create_task(requests()), asyncio.create_task(answers())]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            for one in (writer, upstream):
                one.transport.abort()
            self._writers -= {writer, upstream}
