"""Limits: the largest allowed value is stored and read back, a larger one is refused before it reaches the store."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final

import pytest

from eventcore.commands import Command
from eventcore.errors import InvalidEvent
from eventcore.events import Event, StreamId
from eventcore.store import EventStore
from eventcore.stores import AppendRequest, Backend
from eventcore.testing.contract.accounts import Deposit, Look, account
from eventcore.testing.contract.fixtures import ContractFixtures, matching, new_event, positions

A: Final = account("a")
_MAX_BYTES: Final = 1 << 20


class Kept(Event):
    event_type: ClassVar[str] = "eventcore.testing.Kept"
    text: str = ""
    number: int = 0
    real: float = 0.0


class Keep(Command[None]):
    """Writes an event that it is given."""

    stream: StreamId
    event: Kept

    def handle(self, state: None) -> Iterable[tuple[StreamId, Event]]:
        yield self.stream, self.event


class LimitContract(ContractFixtures):
    """Tests of the largest and the most unusual values."""

    async def test_a_stream_id_may_have_255_characters_of_any_script(self, backend: Backend) -> None:
        for number, character in enumerate("xé日🚀\\'\"%ﷺ"):
            stream, shorter, first = StreamId(character * 255), StreamId(character * 254), number * 2 + 1
            events = [new_event(stream, 1, event_type=character * 255), new_event(shorter, 1)]
            assert await backend.log.append([AppendRequest({stream: 0, shorter: 0}, {stream: 0, shorter: 0}, events)]) == [
                first
            ]
            page = await backend.log.read_streams({stream: 0, shorter: 0})
            assert [positions(page.rows[one]) for one in (stream, shorter)] == [[first], [first + 1]], "no id may be cut"
            [row] = await backend.log.scan(0, first + 1, 9, matching(stream))
            assert (row.position, row.stream_id, row.event_type) == (first, stream, character * 255)

    async def test_every_accepted_value_is_read_back_unchanged(self, store: EventStore) -> None:
        events = (
            Kept(text="\x01\x7f\x85\u2028\ufeff\ufffd\uffff 'quoted' \"twice\" \\ \\u0000 %s $1 {} é 日本 🚀"),
            Kept(number=2**63 - 1),
            Kept(number=-(2**63)),
            Kept(real=1.7976931348623157e308),
            Kept(real=5e-324),
            Kept(real=0.1 + 0.2),
        )
        results = [await store.execute(Keep(stream=A, event=event)) for event in events]
        assert [stored async for stored in store.read(A)] == [result.events[0] for result in results]
        assert tuple(result.events[0].data for result in results) == events

    async def test_a_value_that_not_every_store_can_keep_is_refused(self, store: EventStore) -> None:
        for event in (Kept(text="a\0b"), Kept(text="\ud800"), Kept(real=float("nan")), Kept(real=float("inf"))):
            with pytest.raises(InvalidEvent):
                await store.execute(Keep(stream=A, event=event))
        assert await store.head_position() == 0

    async def test_an_event_may_be_as_large_as_the_limit_and_no_larger(self, store: EventStore) -> None:
        room = _MAX_BYTES - len('{"text":"","number":0,"real":0.0}')
        result = await store.execute(Keep(stream=A, event=Kept(text="x" * room)))
        assert [stored async for stored in store.read_all()] == list(result.events)
        with pytest.raises(InvalidEvent, match=f"{_MAX_BYTES + 1} bytes"):
            await store.execute(Keep(stream=A, event=Kept(text="x" * (room + 1))))
        assert await store.head_position() == 1

    async def test_a_command_may_write_ten_thousand_events(self, store: EventStore) -> None:
        result = await store.execute(Deposit(account=A, times=10_000))
        assert result.position == 10_000
        assert [event.version async for event in store.read(A)] == list(range(1, 10_001))

    async def test_a_boundary_may_have_a_thousand_streams(self, store: EventStore) -> None:
        streams = tuple(account(number) for number in range(1000))
        await store.execute(Deposit(account=streams[-1]))
        assert (await store.execute(Look(accounts=streams))).position == 1
