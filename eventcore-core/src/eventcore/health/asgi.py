"""The health endpoints as an ASGI application, to mount in FastAPI, Starlette or Django."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from eventcore.health.answers import Answer, Answers
from eventcore.health.methods import HasHealth

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]
ASGIApplication: TypeAlias = Callable[[_Message, _Receive, _Send], Awaitable[None]]


def asgi_app(store: HasHealth) -> ASGIApplication:
    """An application with the health of ``store``: ``/livez``, ``/readyz`` and ``/healthz`` as JSON, and a page at ``/``.

    ``/livez`` answers 200 while the process makes progress, whatever its server does: it is for liveness probes. ``/readyz``
    answers 200 while commands can be executed, within 0.8 seconds: for readiness and start-up probes. ``/healthz`` answers 200
    unless the health is ``unhealthy``. Otherwise they answer 503. The page shows figures of this process, and needs no other
    host. Whoever can reach the application can read all this; it contains no secrets.

    Args:
        store: the store; it may be opened later, and is not ready until then.

    >>> import asyncio
    >>> from eventcore import open_store
    >>> async def get(app, path):
    ...     sent = []
    ...     async def receive():
    ...         return {"type": "http.request"}
    ...     async def send(message):
    ...         sent.append(message)
    ...     await app({"type": "http", "method": "GET", "path": path, "root_path": ""}, receive, send)
    ...     return sent[0]["status"]
    >>> async def main():
    ...     async with open_store("memory:", exporters="none") as store:
    ...         app = asgi_app(store)
    ...         return await get(app, "/readyz"), await get(app, "/nothing")
    >>> asyncio.run(main())
    (200, 404)
    """
    answers = Answers(store)

    async def health(scope: _Message, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            answer = await answers.answer(scope["method"], _path(scope))
            await _send(answer, send, with_body=scope["method"] != "HEAD")
        else:
            await receive()
            await send({"type": f"{scope['type']}.close"})

    return health


def _path(scope: _Message) -> str:
    """The path below the place where the application is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path") or ""
    # Since ASGI 2.4, `path` includes `root_path`; older servers leave it out.
    if root and (path == root or path.startswith(f"{root.rstrip('/')}/")):
        path = path[len(root.rstrip("/")) :]
    return path or "/"


async def _send(answer: Answer, send: _Send, *, with_body: bool) -> None:
    headers = [(name.lower().encode(), value.encode()) for name, value in answer.all_headers()]
    headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body if with_body else b""})


async def _lifespan(receive: _Receive, send: _Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
