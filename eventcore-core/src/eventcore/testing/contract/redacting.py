"""Redaction and stored states: an event that was redacted says nothing of its old text any more, wherever it was kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pytest

from eventcore.errors import BusinessRuleViolation, InvalidEvent, InvalidInput
from eventcore.events import Event, StreamId
from eventcore.store import EventStore
from eventcore.stores import Backend, EventsRedacted, Snapshot, StateKey
from eventcore.testing.contract.accounts import Deposit, Deposited, Look, Transfer, Withdrawn, account
from eventcore.testing.contract.fixtures import ContractFixtures, everything, fill, log, positions, request

A: Final = account("a")
B: Final = account("b")
_KEY: Final = StateKey("Balance", 1)
_NEW: Final = b'{"amount":0}'


async def state(backend: Backend, stream: StreamId, version: int, /, **changes: Any) -> Snapshot:
    """A state that fits the stream at this version, apart from ``changes``."""
    page = await backend.log.read_streams({stream: 0}, purpose="api")
    fitting: dict[str, Any] = {
        "key": _KEY,
        "version": version,
        "event_id": page.rows[stream][version - 1].event_id,
        "redactions": page.redactions,
        "data": f"state {version}".encode(),
    }
    return Snapshot(**(fitting | changes))


async def stored(backend: Backend, stream: StreamId, key: StateKey = _KEY) -> tuple[int, list[int]]:
    """The version of the stored state of a stream (0: none), and the versions of the events behind it."""
    page = await backend.log.read_streams({stream: 0}, purpose="api", snapshots={stream: key})
    found = page.snapshots.get(stream)
    return (0 if found is None else found.version), [row.version for row in page.rows[stream]]


class RedactContract(ContractFixtures):
    """Tests of ``EventLog.redact``, ``EventLog.save_snapshots`` and ``EventStore.redact``."""

    async def test_a_redacted_event_says_what_it_was_given_and_is_otherwise_the_same(self, backend: Backend) -> None:
        await fill(backend, A, B, A)
        before = await everything(backend)
        trace = await backend.log.redact(before[1].event_id, _NEW, "asked by the customer")
        assert trace is not None
        assert (trace.number, trace.stream_id, trace.version, trace.position) == (1, B, 1, 2)
        assert (trace.event_id, trace.reason) == (before[1].event_id, "asked by the customer")
        assert trace.redacted_at_ns > 1_700_000_000 * 10**9
        after = await everything(backend)
        assert after[1].data == _NEW.decode(), "the data is replaced as it was given"
        assert [(row.event_id, row.position, row.metadata, row.recorded_at_ns) for row in after] == [
            (row.event_id, row.position, row.metadata, row.recorded_at_ns) for row in before
        ], "only the data changes"
        assert [after[0], after[2]] == [before[0], before[2]], "no other event changes"
        page = await backend.log.read_streams({B: 0}, purpose="api")
        assert ([row.data for row in page.rows[B]], page.redactions) == ([_NEW.decode()], 1)

    async def test_redactions_are_numbered_in_order_across_processes(self, backend: Backend, another_backend: Backend) -> None:
        await fill(backend, A, B)
        ids = [row.event_id for row in await everything(backend)]
        traces = [
            await one.log.redact(event_id, _NEW, "again", position=position)
            for one, event_id, position in ((backend, ids[0], 1), (another_backend, ids[1], None), (backend, ids[0], None))
        ]
        assert [trace and trace.number for trace in traces] == [1, 2, 3], "every redaction leaves a trace of its own"

    async def test_an_event_that_is_not_there_is_not_redacted(self, backend: Backend) -> None:
        await fill(backend, A)
        [row] = await everything(backend)
        assert await backend.log.redact("f" * 32, _NEW, "why") is None
        assert await backend.log.redact("f" * 32, _NEW, "why", position=1) is None, "the event at the position has another id"
        assert await backend.log.redact(row.event_id, _NEW, "why", position=2) is None
        assert await everything(backend) == [row]
        assert (await backend.log.read_streams({A: 0}, purpose="api")).redactions == 0, "nothing happened, so there is no trace"
        assert await backend.log.find_event("f" * 32) is None
        assert await backend.log.find_event(row.event_id) == row

    @pytest.mark.parametrize("reason", ["", "  ", "a\0b", "\ud800"])
    async def test_a_redaction_needs_a_reason(self, backend: Backend, reason: str) -> None:
        await fill(backend, A)
        [row] = await everything(backend)
        with pytest.raises(ValueError, match="expected a printable text that says why"):
            await backend.log.redact(row.event_id, _NEW, reason)
        assert await everything(backend) == [row]

    async def test_a_process_that_has_seen_the_old_text_appends_nothing_that_builds_on_it(
        self, backend: Backend, another_backend: Backend
    ) -> None:
        await fill(backend, A)
        other = another_backend.log
        await other.read_streams({A: 0})
        [row] = await everything(backend)
        await backend.log.redact(row.event_id, _NEW, "why")
        with pytest.raises(EventsRedacted):
            await other.append([request({A: 1}, A), request({B: 0}, B)])
        assert await log(backend) == [(1, A, 1)], "nothing of the refused call is stored"
        await other.read_streams({A: 0})
        assert await other.append([request({A: 1}, A)]) == [2], "what was read since knows the redaction"

    async def test_a_read_for_commands_tells_once_that_events_were_redacted(
        self, backend: Backend, another_backend: Backend
    ) -> None:
        await fill(backend, A, B)
        other = another_backend.log
        await other.check_redactions()
        assert (await other.read_streams({A: 0})).redactions == 0
        [row, _] = await everything(backend)
        await backend.log.redact(row.event_id, _NEW, "why")
        assert (await other.read_streams({B: 0}, purpose="api")).redactions == 1, "only commands keep what they have read"
        with pytest.raises(EventsRedacted):
            await other.read_streams({B: 0})
        assert (await other.read_streams({B: 0})).redactions == 1
        await other.check_redactions()

    async def test_an_idle_process_can_ask_whether_events_were_redacted(
        self, backend: Backend, another_backend: Backend
    ) -> None:
        await fill(backend, A)
        other = another_backend.log
        await other.read_streams({A: 0})
        await other.check_redactions()
        [row] = await everything(backend)
        await backend.log.redact(row.event_id, _NEW, "why")
        with pytest.raises(EventsRedacted):
            await other.check_redactions()
        await other.check_redactions()
        assert await other.append([request({A: 1}, A)]) == [2]

    # Stored states

    async def test_a_stored_state_comes_back_with_the_events_behind_it(
        self, backend: Backend, another_backend: Backend
    ) -> None:
        await fill(backend, A, B, A, A)
        saved = await state(backend, A, 2, data=bytes(range(256)))
        await backend.log.save_snapshots({A: saved})
        page = await another_backend.log.read_streams({A: 0, B: 0}, snapshots={A: _KEY, B: _KEY})
        assert dict(page.snapshots) == {A: saved}, "a state is stored byte for byte, and visible in every process"
        assert {stream: positions(rows) for stream, rows in page.rows.items()} == {A: [4], B: [2]}
        assert page.more == frozenset()
        page = await another_backend.log.read_streams({A: 1, B: 0}, snapshots={A: _KEY})
        assert (dict(page.snapshots), positions(page.rows[A])) == ({}, [3, 4]), "who has read the beginning needs no state"
        page = await another_backend.log.read_streams({A: 0}, up_to=1, snapshots={A: _KEY})
        assert (dict(page.snapshots), positions(page.rows[A])) == ({}, [1]), "the state has seen more than was asked for"

    async def test_a_stored_state_belongs_to_one_class_and_its_version(self, backend: Backend) -> None:
        await fill(backend, A, A, A)
        newer = StateKey("Balance", 2)
        await backend.log.save_snapshots({A: await state(backend, A, 1)})
        await backend.log.save_snapshots({A: await state(backend, A, 3, key=newer)})
        assert await stored(backend, A) == (1, [2, 3])
        assert await stored(backend, A, newer) == (3, [])
        assert await stored(backend, A, StateKey("Other", 1)) == (0, [1, 2, 3])

    async def test_the_newest_state_is_kept(self, backend: Backend, another_backend: Backend) -> None:
        await fill(backend, A, A, A, A)
        for one, version, kept in ((backend, 2, 2), (another_backend, 3, 3), (backend, 1, 3), (another_backend, 4, 4)):
            await one.log.save_snapshots({A: await state(one, A, version)})
            assert (await stored(backend, A))[0] == kept

    @pytest.mark.parametrize("change", [{"event_id": "f" * 32}, {"version": 9}, {"version": 0}])
    async def test_a_state_of_a_lost_timeline_is_not_stored(self, backend: Backend, change: Mapping[str, Any]) -> None:
        await fill(backend, A, A, B)
        lost = await state(backend, A, 2, **change)
        fitting = await state(backend, B, 1)
        await backend.log.save_snapshots({A: lost, B: fitting})
        assert await stored(backend, A) == (0, [1, 2]), "the event at the state's version must have its event id"
        assert await stored(backend, B) == (1, []), "the other states are stored"

    async def test_a_redaction_deletes_the_states_of_its_stream(self, backend: Backend) -> None:
        await fill(backend, A, A, B)
        rows = await everything(backend)
        states = {A: await state(backend, A, 1), B: await state(backend, B, 1)}
        await backend.log.save_snapshots(states)
        await backend.log.redact(rows[1].event_id, _NEW, "why")
        assert await stored(backend, A) == (0, [1, 2]), "a state may hold the old text"
        assert await stored(backend, B) == (1, []), "the states of other streams stay"
        await backend.log.save_snapshots(states)
        assert await stored(backend, A) == (0, [1, 2]), "a state from before the redaction is not stored after it"
        await backend.log.save_snapshots({A: await state(backend, A, 2)})
        assert await stored(backend, A) == (2, []), "a state that has seen the redaction is stored"

    async def test_many_states_are_stored_and_read_at_once(self, backend: Backend) -> None:
        streams = [account(number) for number in range(300)]
        await fill(backend, *streams, *streams)
        page = await backend.log.read_streams(dict.fromkeys(streams, 0), purpose="api")
        saved = {one: Snapshot(_KEY, 1, page.rows[one][0].event_id, 0, str(one).encode()) for one in streams[::2]}
        await backend.log.save_snapshots(saved)
        await backend.log.save_snapshots({})
        page = await backend.log.read_streams(dict.fromkeys(streams, 0), snapshots=dict.fromkeys(streams, _KEY))
        assert dict(page.snapshots) == saved
        assert [len(page.rows[stream]) for stream in streams] == [1, 2] * 150

    # Through an EventStore

    async def test_every_store_decides_on_the_new_text(self, store: EventStore, another_store: EventStore) -> None:
        [event] = (await store.execute(Deposit(account=A, amount=100))).events
        for one in (store, another_store):
            await one.execute(Transfer(source=A, target=B, amount=1))
            await one.execute(Look(accounts=(A, B)))
        trace = await store.redact(event.event_id, data=Deposited(amount=5), reason="it was never paid")
        assert (trace.position, trace.reason) == (1, "it was never paid")
        for one in (another_store, store):
            with pytest.raises(BusinessRuleViolation, match="holds 3, not 50"):
                await one.execute(Transfer(source=A, target=B, amount=50))
        assert (await another_store.execute(Transfer(source=A, target=B, amount=3))).position == 7
        assert (await anext(another_store.read(A))).data == Deposited(amount=5)

    async def test_the_fields_of_the_new_text_may_be_given_by_name(self, store: EventStore) -> None:
        [event] = (await store.execute(Deposit(account=A, amount=7, note="to Ada"))).events
        await store.redact(event.event_id, data={"amount": 7}, reason="asked by the customer")
        assert [event.data async for event in store.read(A)] == [Deposited(amount=7)], "left out fields have their default"

    @pytest.mark.parametrize(
        "data",
        [
            Withdrawn(amount=1),
            Deposited(amount="much"),  # type: ignore[arg-type]  # that is what is refused
            Deposited(amount=1, note="a\0b"),
            {"amount": "much"},
            {"note": "no amount"},
            {"amount": 1, "nte": "misspelt"},
            {"amount": float("nan")},
            "amount",
            None,
        ],
    )
    async def test_what_could_not_be_read_again_is_refused(self, store: EventStore, data: Event | Mapping[str, Any]) -> None:
        [event] = (await store.execute(Deposit(account=A, amount=7))).events
        with pytest.raises(InvalidEvent):
            await store.redact(event.event_id, data=data, reason="why")
        assert [event async for event in store.read(A)] == [event], "nothing has changed"

    async def test_a_redaction_of_an_unknown_event_is_refused(self, store: EventStore) -> None:
        with pytest.raises(InvalidInput, match=r"no event of the store 'contract' has the id 'f{32}'"):
            await store.redact("f" * 32, data=Deposited(amount=1), reason="why")
