"""A backend that counts what is read from it."""

from __future__ import annotations

from typing import Any, cast, final

from eventcore.stores import Backend
from eventcore.stores.urls import backend_from_url

__all__ = ["CountedReads", "counted"]


@final
class CountedReads:
    """Attributes: ``calls`` of ``read_streams``, and the ``rows`` that they have returned."""

    def __init__(self) -> None:
        self.calls = 0
        self.rows = 0


@final
class _Log:
    def __init__(self, real: Any, reads: CountedReads) -> None:
        self._real = real
        self._reads = reads

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def read_streams(self, *arguments: Any, **options: Any) -> Any:
        page = await self._real.read_streams(*arguments, **options)
        self._reads.calls += 1
        self._reads.rows += sum(map(len, page.rows.values()))
        return page


@final
class _Backend:
    def __init__(self, real: Any, reads: CountedReads) -> None:
        self._real = real
        self.log = _Log(real.log, reads)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def counted(url: str) -> tuple[Backend, CountedReads]:
    """The backend of a URL, not open yet, and the counts of what is read from it."""
    reads = CountedReads()
    return cast(Backend, _Backend(backend_from_url(url), reads)), reads
