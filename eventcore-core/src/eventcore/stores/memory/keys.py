"""The idempotency keys of a store in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import heappop, heappush
from time import monotonic
from typing import final

from eventcore.stores.values import CommandKey, KeyRecord


@final
class MemoryKeys:
    """Keys until they expire. Expired ones are removed when others are added."""

    def __init__(self) -> None:
        self._records: dict[str, tuple[float, KeyRecord]] = {}
        # When each key expires, soonest first.
        self._expiring: list[tuple[float, str]] = []

    def find(self, keys: Iterable[str]) -> Mapping[str, KeyRecord]:
        """See ``EventLog.find_keys``."""
        now = monotonic()
        found = ((key, self._records.get(key)) for key in keys)
        return {key: entry[1] for key, entry in found if entry is not None and entry[0] > now}

    def add(self, records: Iterable[tuple[CommandKey, KeyRecord]]) -> None:
        """Keep the records of new keys."""
        now = monotonic()
        for key, record in records:
            expires = now + key.seconds
            self._records[key.key] = (expires, record)
            heappush(self._expiring, (expires, key.key))
        while self._expiring and self._expiring[0][0] <= now:
            expires, expired = heappop(self._expiring)
            # Since it expired, the key may have been added again.
            if self._records[expired][0] == expires:
                del self._records[expired]
