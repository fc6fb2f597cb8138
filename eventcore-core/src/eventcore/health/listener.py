"""The health endpoints on core's own listener, for services without ASGI, and for a process whose event loop is blocked."""

from __future__ import annotations

from types import TracebackType
from typing import final

from eventcore.exporting.logs import bounded_logger
from eventcore.ground import around_fork
from eventcore.health.answers import Answers
from eventcore.health.methods import HasHealth
from eventcore.serving import Access, Listener, Request, Response


@final
class HealthListener:
    """Serves what ``asgi_app`` serves, on threads of its own, from construction until ``close``.

    So it answers also before the store is open, and while the event loop is blocked: then not ready, and after 20 seconds not
    live (``HealthSettings.dead_after``).

    Args:
        store: the store; it may be opened later, and is not ready until then.
        host: a name or an address to listen on; by default, only this machine can connect. ``0.0.0.0`` for probes of
            Kubernetes, which come from outside of the container.
        port: the port; 0 for a free one, see ``url``.
        access: TLS, passwords and tokens; by default everybody who can connect may read.

    Raises:
        OSError: the address cannot be used; the message says why.

    >>> import asyncio, json, urllib.request
    >>> from eventcore import open_store
    >>> def get(url):
    ...     with urllib.request.urlopen(url) as answer:
    ...         return json.load(answer)
    >>> async def main():
    ...     store = open_store("memory:", exporters="none")
    ...     with HealthListener(store, port=0) as listener:
    ...         async with store:
    ...             return (await asyncio.to_thread(get, f"{listener.url}/readyz"))["ready"]
    >>> asyncio.run(main())
    True
    """

    def __init__(self, store: HasHealth, host: str = "127.0.0.1", port: int = 8086, *, access: Access | None = None) -> None:
        self._answers = Answers(store)
        # Bounded, because clients cause its records.
        logger = bounded_logger("eventcore.health.listener")
        self._listener = Listener(host, port, self._respond, access=access, logger=logger, name="eventcore-health")
        around_fork(self, after_in_child=HealthListener._leave_to_parent)

    @property
    def url(self) -> str:
        """The URL of ``/`` without the slash, as seen from this machine."""
        return self._listener.url

    def close(self, timeout: float = 2.0) -> None:
        """Stop listening. Running responses may end within ``timeout`` seconds."""
        self._listener.close(timeout)

    def __enter__(self) -> HealthListener:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def _respond(self, request: Request) -> Response:
        answer = self._answers.answer_in_thread(request.method, request.path)
        return Response(answer.status, answer.all_headers(), (answer.body,), len(answer.body))

    def _leave_to_parent(self) -> None:
        self._listener.close_in_child()
