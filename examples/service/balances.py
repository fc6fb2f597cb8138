"""The read model: a table of balances, written in the transaction that moves the projection's checkpoint."""

from __future__ import annotations

from typing import Any

from eventcore import OnError, Projection, RecordedEvent
from examples.service.domain import Deposited

TABLE = """
    CREATE TABLE IF NOT EXISTS balances (account text PRIMARY KEY, balance bigint NOT NULL, position bigint NOT NULL)
"""
_ADD = """
    INSERT INTO balances VALUES ($1, $2, $3)
    ON CONFLICT (account) DO UPDATE SET balance = balances.balance + excluded.balance, position = excluded.position
"""


class BalanceTable(Projection):
    """Keeps the balance of each account. An event that cannot be applied waits as a dead letter, and the others go on."""

    name = "balances"
    pattern = "account-*"
    on_error = OnError(retries=3, then="dead_letter")

    async def handle(self, event: RecordedEvent, transaction: Any) -> None:
        amount = event.data.amount if isinstance(event.data, Deposited) else -event.data.amount  # type: ignore[attr-defined]
        await transaction.execute(_ADD, event.stream_id.removeprefix("account-"), amount, event.position)
