"""A projection whose handler misbehaves: it raises, leaves rows unread, keeps cursors, and tries to end the transaction."""

from __future__ import annotations

import random
import sqlite3
from contextlib import suppress
from functools import partial
from typing import Any, Final

from eventcore import OnError, Projection, RecordedEvent
from eventcore.errors import InvalidProjection
from tests.soak.proof import is_poison

# Enough retries for an event that fails in several processes, one after another, and is killed between.
_POLICY: Final = OnError(retries=4, base_delay=0.01, max_delay=0.02, then="dead_letter")
# The share of events at which the handler fails, and succeeds when it is tried again.
_FAILS: Final = 0.02
# The share of events at which the handler leaves something behind, or tries what is forbidden.
_MISBEHAVES: Final = 0.05
_ROWS: Final = "SELECT stream, events FROM soak_tally"


class _Unruly(Projection):
    name = "unruly"
    on_error = _POLICY

    def __init__(self) -> None:
        self._choice = random.Random()
        self._failed = 0
        self._kept: list[Any] = []

    def _raise_sometimes(self, event: RecordedEvent) -> None:
        if is_poison(event.position):
            raise ArithmeticError("this event can never be applied")
        if event.position != self._failed and self._choice.random() < _FAILS:
            self._failed = event.position
            raise LookupError("this event can be applied when it is tried again")

    def _misbehaves(self) -> bool:
        return self._choice.random() < _MISBEHAVES


class UnrulyOnPostgres(_Unruly):
    """Counts every event that is no poison, in the transaction of the checkpoint."""

    def __init__(self, count: str) -> None:
        super().__init__()
        self._count = count

    async def handle(self, event: RecordedEvent, transaction: Any) -> None:
        from tests.soak.projector import row_of

        await transaction.execute(self._count, *row_of(self.name, event))
        if self._misbehaves():
            self._kept = [transaction, await transaction.fetch(_ROWS)]
            for end in (partial(transaction.execute, "COMMIT"), partial(transaction.execute, "ROLLBACK"), transaction.close):
                with suppress(InvalidProjection):
                    await end()
                    raise AssertionError("a handler has ended its transaction")
        self._raise_sometimes(event)


class UnrulyOnSqlite(_Unruly):
    """Counts every event that is no poison, in the transaction of the checkpoint."""

    def __init__(self, count: str) -> None:
        super().__init__()
        self._count = count

    def handle(self, event: RecordedEvent, transaction: sqlite3.Connection) -> None:
        from tests.soak.projector import row_of

        transaction.execute(self._count.replace("$", "?"), row_of(self.name, event))
        if self._misbehaves():
            cursor = transaction.execute(_ROWS)
            cursor.fetchone()
            self._kept = [transaction, cursor]
            for statement in ("COMMIT", "ROLLBACK"):
                with suppress(InvalidProjection):
                    transaction.execute(statement)
                    raise AssertionError("a handler has ended its transaction")
        self._raise_sometimes(event)
