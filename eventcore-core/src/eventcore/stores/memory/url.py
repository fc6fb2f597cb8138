"""The URL of a store in memory."""

from __future__ import annotations

from eventcore.errors import InvalidStoreUrl
from eventcore.stores.memory.backend import MemoryBackend


def backend_from_url(url: str, *, migrate: bool) -> MemoryBackend:  # noqa: ARG001  # every store has this signature
    """A new store; it has no schema to migrate."""
    if url != "memory:":
        raise InvalidStoreUrl(f'store URL {url!r:.80}: a store in memory has no name or settings; write "memory:"')
    return MemoryBackend()
