"""The rights that the documentation tells an operator to grant."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

from eventcore import Command, Event, OnError, Projection, RecordedEvent, StreamId, StreamState, open_store
from tests.postgres.backends import Server
from tests.postgres.test_postgres_opening import signed_in


class Opened(Event):
    number: int


class Account(StreamState, version=1, snapshot_every=1):
    opened: int = 0

    def apply(self, event: RecordedEvent) -> None:
        self.opened += 1


class Open(Command[Mapping[StreamId, Account]]):
    account: Annotated[StreamId, Account]

    def handle(self, state: Mapping[StreamId, Account]) -> Iterable[tuple[StreamId, Event]]:
        yield self.account, Opened(number=state[self.account].opened)


class Failing(Projection):
    name = "failing"
    on_error = OnError(retries=0, then="dead_letter")

    async def handle(self, event: RecordedEvent, transaction: object) -> None:
        raise ValueError("as it is")


async def test_the_rights_that_the_documentation_lists_are_enough_for_everything(
    server: Server, url: str, database: str
) -> None:
    role, account = f"{database}_shop", StreamId("account-1")
    page = (Path(__file__).parents[2] / "docs" / "postgresql.md").read_text()
    rights = next(block for block in re.findall(r"```sql\n(.*?)```", page, re.DOTALL) if "GRANT USAGE" in block)
    server.sql(f"CREATE ROLE {role} LOGIN PASSWORD 'shop'; {rights.replace('TO shop', f'TO {role}')}", database)
    async with open_store(signed_in(url, role, "shop"), migrate=False, exporters="none", idempotency_ttl=0.2) as store:
        opened = await store.execute(Open(account=account), idempotency_key="a")
        assert (await store.execute(Open(account=account), idempotency_key="a")).position == opened.position
        await asyncio.sleep(0.25)
        # The expired key is removed, and a second state of the stream replaces the first.
        await store.execute(Open(account=account), idempotency_key="b")
        running = asyncio.create_task(store.run(Failing()))
        await store.wait_for(Failing(), opened.position, timeout=10)
        await store.redact(opened.events[0].event_id, data={"number": 9}, reason="a test")
        await store.execute(Open(account=account))
        running.cancel()
        await asyncio.wait([running])
        assert await store.dead_letters("failing")
        await store.reset_projection("failing")
    states = server.sql("SELECT count(*) FROM eventcore.snapshots", database)
    assert (states, server.sql("SELECT count(*) FROM eventcore.command_keys", database)) == ("1", "1")
