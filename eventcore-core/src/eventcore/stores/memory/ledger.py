"""Projections of a store in memory: leases, checkpoints and dead letters in dictionaries of this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import isawaitable
from time import monotonic
from typing import Any, final

from eventcore.errors import LeadershipLost
from eventcore.stores.base import START, Checkpoint, DeadLetter, Lease, ProjectionRecord


class _Row:
    __slots__ = ("checkpoint", "leased_until", "letters", "owner", "token")

    def __init__(self) -> None:
        self.checkpoint = START
        self.owner = ""
        self.token = 0
        self.leased_until = 0.0
        self.letters: dict[int, DeadLetter] = {}


@final
class MemoryProjections:
    """What ``Backend`` says of projections, without durability."""

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}

    def acquire_lease(self, projection: str, owner: str, seconds: float) -> Lease | None:
        """The lease, unless another holds it."""
        row = self._rows.setdefault(projection, _Row())
        if row.owner not in ("", owner) and row.leased_until > monotonic():
            return None
        row.owner, row.token, row.leased_until = owner, row.token + 1, monotonic() + seconds
        return Lease(projection, row.token, row.checkpoint)

    def renew_lease(self, lease: Lease, seconds: float) -> bool:
        """Keep the lease, if it is still this one's."""
        if (row := self._held(lease)) is None:
            return False
        row.leased_until = monotonic() + seconds
        return True

    def release_lease(self, lease: Lease) -> None:
        """Let another have it."""
        if (row := self._held(lease)) is not None:
            row.owner, row.leased_until = "", 0.0

    async def commit_checkpoint(
        self,
        lease: Lease,
        before: Checkpoint,
        after: Checkpoint,
        letters: Sequence[DeadLetter],
        apply: Callable[[Any], Any] | None,
    ) -> None:
        """Apply, then move the checkpoint: what ``apply`` did cannot be taken back here."""
        row = self._rows.get(lease.projection)
        if self._held(lease) is None or row is None or row.checkpoint != before:
            raise LeadershipLost(
                f"projection {lease.projection!r} was taken over: its checkpoint is no longer this runner's at position "
                f"{before.position}"
            )
        await _call(apply)
        row.checkpoint = after
        row.letters.update((letter.position, letter) for letter in letters)

    def projections(self) -> Sequence[ProjectionRecord]:
        """All of them, by name."""
        now = monotonic()
        return [
            ProjectionRecord(
                name,
                row.checkpoint,
                row.owner if row.leased_until > now else "",
                row.token,
                max(0.0, row.leased_until - now),
                len(row.letters),
            )
            for name, row in sorted(self._rows.items())
        ]

    def dead_letters(self, projection: str, limit: int) -> Sequence[DeadLetter]:
        """The first ones."""
        row = self._rows.get(projection)
        return [] if row is None else [letter for _, letter in sorted(row.letters.items())[:limit]]

    async def remove_dead_letter(self, letter: DeadLetter, apply: Callable[[Any], Any] | None) -> bool:
        """Apply, then forget it."""
        row = self._rows.get(letter.projection)
        if row is None or letter.position not in row.letters:
            return False
        await _call(apply)
        return row.letters.pop(letter.position, None) is not None

    def reset_projection(self, projection: str) -> None:
        """Begin again, unless somebody runs it."""
        row = self._rows.get(projection)
        if row is None:
            return
        if row.owner and row.leased_until > monotonic():
            raise LeadershipLost(f"projection {projection!r} is being run: stop it first, then reset it")
        fresh = self._rows[projection] = _Row()
        fresh.token = row.token + 1

    def _held(self, lease: Lease) -> _Row | None:
        row = self._rows.get(lease.projection)
        return row if row is not None and row.owner and row.token == lease.token else None


async def _call(apply: Callable[[Any], Any] | None) -> None:
    if apply is not None and isawaitable(result := apply(None)):
        await result
