"""The pages of all workers, and how one page is made of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import inf
from typing import Final, final

import msgspec

from eventcore_prometheus.naming import ExposedName
from eventcore_prometheus.page import Family, Page, load_families, put_together
from eventcore_prometheus.rendering import family_header

# Seconds after which the last values of an ended worker are given up, if nobody has scraped them.
KEPT: Final = 300.0
# Seconds for which they are shown from the first scrape on: for a second Prometheus, and for one whose scrape has failed.
SHOWN: Final = 60.0
# Values that stay true after their process has ended.
_LASTING: Final = frozenset({"counter", "histogram"})
_UP: Final = "eventcore_exporters_worker_up"
_UP_HELP: Final = "Whether this worker has answered the scrape: 1, or 0 when its last counters and histograms are shown."


def encode_page(page: Page) -> bytes:
    """A page as it is sent to another process."""
    return page.dump()


def decode_page(data: bytes) -> Page:
    """A page that another process has sent."""
    return put_together(load_families(data))


@final
@dataclass(slots=True)
class _Entry:
    page: bytes
    ended_at: float | None = None
    # When a page of all workers had these values first after their worker had ended.
    shown_at: float | None = None

    def expires(self) -> float:
        """When these values are given up; infinity while their worker runs."""
        if self.ended_at is None:
            return inf
        return self.ended_at + KEPT if self.shown_at is None else self.shown_at + SHOWN


@final
class Board:
    """The newest page of each worker. Only the thread of ``Workers`` uses it."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        # Numbers of workers that have not sent a page yet.
        self._given: set[int] = set()

    def give(self, wanted: int | None) -> int:
        """A number for a new worker: the one that it has had, if that is free, or the smallest that is."""
        taken = self._given | self._entries.keys()
        if wanted is not None and (wanted not in taken or (wanted not in self._given and self.ended(wanted))):
            number = wanted
            if (entry := self._entries.get(wanted)) is not None:
                entry.ended_at = entry.shown_at = None
        else:
            number = next(candidate for candidate in range(len(taken) + 1) if candidate not in taken)
        self._given.add(number)
        return number

    def put(self, worker: int, page: bytes) -> None:
        """Keep the newest page of a worker."""
        self._entries[worker] = _Entry(page)

    def end(self, worker: int, now: float) -> None:
        """The worker has ended: its last counters and histograms are kept for a while."""
        self._given.discard(worker)
        entry = self._entries.get(worker)
        if entry is not None and entry.ended_at is None:
            entry.ended_at = now

    def end_all(self, now: float) -> None:
        """Every worker counts as ended until it comes back; for a new holder."""
        for worker in list(self._entries):
            self.end(worker, now)
        self._given.clear()

    def ended(self, worker: int) -> bool:
        """Whether only the last page of the worker is left."""
        entry = self._entries.get(worker)
        return entry is not None and entry.ended_at is not None

    def show(self, worker: int, now: float) -> None:
        """The page of a worker that has ended was shown."""
        entry = self._entries.get(worker)
        if entry is not None and entry.ended_at is not None and entry.shown_at is None:
            entry.shown_at = now

    def shown(self, worker: int) -> bool:
        """Whether the last page of a worker that has ended was shown."""
        entry = self._entries.get(worker)
        return entry is not None and entry.shown_at is not None

    def forget(self, worker: int) -> None:
        """Free the number of a worker that has ended."""
        self._entries.pop(worker, None)

    def workers(self) -> list[int]:
        """The workers of which there is a page."""
        return list(self._entries)

    def page(self, worker: int) -> bytes | None:
        """The newest page of a worker; ``None`` if it has not sent one."""
        entry = self._entries.get(worker)
        return entry.page if entry is not None else None

    def expired(self, now: float) -> list[int]:
        """Workers that ended so long ago that their last values are given up."""
        return [worker for worker, entry in self._entries.items() if entry.expires() <= now]

    def next_expiry(self) -> float:
        """When ``expired`` will have one more worker; infinity if no worker has ended."""
        return min((entry.expires() for entry in self._entries.values()), default=inf)

    def not_shown(self) -> list[int]:
        """The workers that have ended and whose last page was not shown."""
        return [worker for worker in self._entries if self.ended(worker) and not self.shown(worker)]

    def whole(self, answered: Collection[int]) -> Page:
        """One page of all workers.

        Of a worker that has not answered, only counters and histograms are shown: they are true until the next
        answer or are the last ones, while a gauge would be taken for the present value. That a worker is down is shown once
        after its end.
        """
        families: list[Family] = []
        up: list[str] = []
        for worker in sorted(self._entries.keys() | self._given):
            answers = worker in answered
            if not self.shown(worker):
                up.append(f'{_UP}{{worker="{worker}"}} {int(answers)}\n')
            if (entry := self._entries.get(worker)) is not None:
                try:
                    # Two programs of one service may use one name for two kinds of instruments: the first one is shown.
                    families += [family for family in load_families(entry.page) if answers or family.kind in _LASTING]
                except msgspec.MsgspecError:
                    continue  # sent by another version; it must not spoil the page of all others
        families.append(_up_family("".join(up).encode()))
        return put_together(families)


def _up_family(samples: bytes) -> Family:
    name = ExposedName(_UP, _UP, "")
    header = family_header("gauge", name, _UP_HELP, openmetrics=False).encode()
    return Family("gauge", name, _UP_HELP, header, header, samples=[samples], openmetrics=[samples])
