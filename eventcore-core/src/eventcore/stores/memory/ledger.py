"""The projection ledger of a store in memory."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import isawaitable
from time import monotonic
from typing import final

from eventcore.events.codec import StoredEvent
from eventcore.stores.failures import lost_event, still_running, taken_over
from eventcore.stores.values import START, Apply, Checkpoint, DeadLetter, Lease, ProjectionRecord, RunState


class _Entry:
    """The state of one projection.

    Attributes:
        leased_until: when the lease ends, by ``time.monotonic``.
        letters: its dead letters by position.
    """

    __slots__ = ("checkpoint", "leased_until", "letters", "owner", "state", "token")

    def __init__(self) -> None:
        self.checkpoint = START
        self.owner = ""
        self.token = 0
        self.leased_until = 0.0
        self.letters: dict[int, DeadLetter] = {}
        self.state = RunState()


@final
class MemoryLedger:
    """Implements ``ProjectionLedger``. Apart from ``apply``, which may await, each method is one step of the event loop.

    What ``apply`` has done is not undone when a later step fails: a store in memory has no transaction to roll back.

    Args:
        rows: the events in order of position.
    """

    def __init__(self, rows: Sequence[StoredEvent]) -> None:
        self._rows = rows
        self._entries: dict[str, _Entry] = {}

    async def acquire_lease(self, projection: str, owner: str, seconds: float) -> Lease | None:
        """See ``ProjectionLedger.acquire_lease``."""
        entry = self._entries.setdefault(projection, _Entry())
        if entry.owner not in ("", owner) and entry.leased_until > monotonic():
            return None
        abandoned = entry.owner not in ("", owner)
        entry.owner, entry.token, entry.leased_until = owner, entry.token + 1, monotonic() + seconds
        return Lease(projection, entry.token, entry.checkpoint, seconds, abandoned, entry.state)

    async def renew_lease(self, lease: Lease, seconds: float) -> bool:
        """See ``ProjectionLedger.renew_lease``."""
        if (entry := self._held(lease)) is None:
            return False
        entry.leased_until = monotonic() + seconds
        return True

    async def release_lease(self, lease: Lease) -> None:
        """See ``ProjectionLedger.release_lease``."""
        if (entry := self._held(lease)) is not None:
            entry.owner, entry.leased_until = "", 0.0

    async def save_run_state(self, lease: Lease, state: RunState) -> None:
        """See ``ProjectionLedger.save_run_state``."""
        if (entry := self._held(lease)) is None:
            raise taken_over(lease, lease.checkpoint)
        entry.state = state

    async def commit_checkpoint(
        self, lease: Lease, before: Checkpoint, after: Checkpoint, dead_letters: Sequence[DeadLetter] = (), apply: Apply = None
    ) -> None:
        """See ``ProjectionLedger.commit_checkpoint``."""
        entry = self._held(lease)
        if entry is None or entry.checkpoint != before:
            raise taken_over(lease, before)
        if not self._stands(after):
            raise lost_event(after)
        await _call(apply)
        entry.checkpoint = after
        entry.letters.update((letter.position, letter) for letter in dead_letters)

    async def projections(self) -> Sequence[ProjectionRecord]:
        """See ``ProjectionLedger.projections``."""
        now = monotonic()
        return [
            ProjectionRecord(name, entry.checkpoint, entry.owner if left else "", entry.token, left, len(entry.letters))
            for name, entry in sorted(self._entries.items())
            for left in (max(0.0, entry.leased_until - now),)
        ]

    async def dead_letters(self, projection: str, limit: int) -> Sequence[DeadLetter]:
        """See ``ProjectionLedger.dead_letters``."""
        entry = self._entries.get(projection)
        return [] if entry is None else [letter for _, letter in sorted(entry.letters.items())[:limit]]

    async def remove_dead_letter(self, letter: DeadLetter, apply: Apply = None) -> bool:
        """See ``ProjectionLedger.remove_dead_letter``."""
        entry = self._entries.get(letter.projection)
        if entry is None or letter.position not in entry.letters:
            return False
        await _call(apply)
        # While `apply` awaited, another caller may have removed the letter.
        return entry.letters.pop(letter.position, None) is not None

    async def reset_projection(self, projection: str) -> None:
        """See ``ProjectionLedger.reset_projection``."""
        entry = self._entries.get(projection)
        if entry is None:
            return
        if entry.owner and entry.leased_until > monotonic():
            raise still_running(projection)
        # Tokens go on growing, so that a runner from before the reset cannot move the checkpoint.
        fresh = self._entries[projection] = _Entry()
        fresh.token = entry.token + 1

    def _stands(self, checkpoint: Checkpoint) -> bool:
        position = checkpoint.position
        return position == 0 or (position <= len(self._rows) and self._rows[position - 1].event_id == checkpoint.event_id)

    def _held(self, lease: Lease) -> _Entry | None:
        entry = self._entries.get(lease.projection)
        return entry if entry is not None and entry.owner and entry.token == lease.token else None


async def _call(apply: Apply) -> None:
    if apply is not None and isawaitable(result := apply(None)):
        await result
