"""Leases, checkpoints and dead letters: one runner leads, its token fences the checkpoint, and a commit is atomic."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
import pytest

from eventcore.errors import HistoryDiverged, LeadershipLost
from eventcore.stores import START, AppendRequest, Backend, Checkpoint, DeadLetter, Lease, ProjectionRecord, RunState
from eventcore.testing.contract.accounts import account
from eventcore.testing.contract.fixtures import ContractFixtures, MakeBackend, ReadModel, new_event

_THREE: Final = Checkpoint(3, "c")
_FOUR: Final = Checkpoint(4, "d")
_NINE: Final = Checkpoint(9, "i")


async def fill_with_letters(backend: Backend) -> None:
    """Append twelve events to an empty store, whose ids are the letters a to l: a checkpoint needs its event."""
    stream = account("letters")
    news = [new_event(stream, version) for version in range(1, 13)]
    named = [
        msgspec.structs.replace(new, recorded=msgspec.structs.replace(new.recorded, event_id=letter))
        for new, letter in zip(news, "abcdefghijkl", strict=True)
    ]
    await backend.log.append([AppendRequest({stream: 0}, {stream: 0}, named)])


async def held(backend: Backend, owner: str, seconds: float = 60.0, projection: str = "p") -> Lease:
    """Acquire a lease, which must be free. Before the first one, the store is filled with events."""
    if await backend.log.head_position() == 0:
        await fill_with_letters(backend)
    lease = await backend.ledger.acquire_lease(projection, owner, seconds)
    assert lease is not None, f"{owner!r} must get the lease of {projection!r}, which is free"
    return lease


async def checkpoint(backend: Backend) -> Checkpoint:
    """The checkpoint of the only projection."""
    [record] = await backend.ledger.projections()
    return record.checkpoint


def letter(position: int, error: str = "bad: ä\U0001f600") -> DeadLetter:
    return DeadLetter("p", position, f"id-{position}", "ValueError", error, 3, 1_700_000_000_123_456_789)


class LeaseContract(ContractFixtures):
    """Tests of the methods of ``Backend`` for projections."""

    async def test_a_lease_has_one_holder_and_a_new_token_each_time(self, backend: Backend) -> None:
        lease = await held(backend, "one")
        assert (lease.projection, lease.checkpoint) == ("p", START), "a projection begins before the first event"
        assert await backend.ledger.acquire_lease("p", "two", 60) is None, "while one owner holds the lease, no other gets it"
        again = await held(backend, "one")
        assert again.token > lease.token, "tokens grow, also for the same owner"
        assert not await backend.ledger.renew_lease(lease, 60), "a lease with an older token cannot be renewed"
        await backend.ledger.release_lease(lease)
        assert await backend.ledger.acquire_lease("p", "two", 60) is None, "releasing a lease with an older token has no effect"
        assert await backend.ledger.renew_lease(again, 60)

    async def test_each_projection_has_its_own_lease(self, backend: Backend) -> None:
        await held(backend, "one", projection="p")
        await held(backend, "two", projection="p@2")
        assert [record.name for record in await backend.ledger.projections()] == ["p", "p@2"]

    async def test_of_many_owners_that_ask_at_once_one_gets_the_lease(self, backend: Backend, another_backend: Backend) -> None:
        acquiring = [
            one.ledger.acquire_lease("p", f"owner-{number}", 60) for number, one in enumerate([backend, another_backend] * 5)
        ]
        leases = [lease for lease in await asyncio.gather(*acquiring) if lease is not None]
        assert len(leases) == 1, f"one owner gets the lease, not {leases}"

    async def test_a_released_lease_is_free_at_once(self, backend: Backend, another_backend: Backend) -> None:
        first = await held(backend, "one")
        await backend.ledger.release_lease(first)
        assert await backend.ledger.projections() == [ProjectionRecord("p", START, "", first.token, 0.0, 0)]
        second = await held(another_backend, "two")
        assert second.token > first.token
        [record] = await backend.ledger.projections()
        assert (record.owner, record.token) == ("two", second.token), "the holder is visible"
        assert 50 < record.lease_left <= 60

    async def test_an_expired_lease_is_free_and_its_holder_is_fenced(self, backend: Backend, another_backend: Backend) -> None:
        old = await held(backend, "one", 0.1)
        await backend.ledger.commit_checkpoint(old, START, _THREE)
        lease = None
        async with asyncio.timeout(10):
            while lease is None:
                lease = await another_backend.ledger.acquire_lease("p", "two", 60)
                await asyncio.sleep(0.01)
        assert lease.checkpoint == _THREE, "the next holder gets the checkpoint of the last one"
        assert not await backend.ledger.renew_lease(old, 60)
        called: list[object] = []
        with pytest.raises(LeadershipLost, match="'p'"):
            await backend.ledger.commit_checkpoint(old, _THREE, _FOUR, (), called.append)
        await another_backend.ledger.commit_checkpoint(lease, _THREE, _FOUR)
        assert await checkpoint(backend) == _FOUR

    async def test_a_renewed_lease_does_not_expire(self, backend: Backend, another_backend: Backend) -> None:
        lease = await held(backend, "one", 0.5)
        assert await backend.ledger.renew_lease(lease, 60)
        await asyncio.sleep(0.6)  # longer than the first duration of the lease
        assert await another_backend.ledger.acquire_lease("p", "two", 60) is None

    async def test_a_checkpoint_moves_only_from_its_current_value(self, backend: Backend) -> None:
        lease = await held(backend, "one")
        await backend.ledger.commit_checkpoint(lease, START, _THREE)
        for before in (START, Checkpoint(3, "x"), Checkpoint(2, "c")):
            with pytest.raises(LeadershipLost):
                await backend.ledger.commit_checkpoint(lease, before, _NINE, [letter(9)])
        assert await backend.ledger.dead_letters("p", 10) == [], "a refused commit stores nothing"
        await backend.ledger.release_lease(lease)
        with pytest.raises(LeadershipLost):
            await backend.ledger.commit_checkpoint(lease, _THREE, _FOUR)
        assert await checkpoint(backend) == _THREE

    async def test_of_two_commits_from_one_checkpoint_one_wins(self, backend: Backend, another_backend: Backend) -> None:
        lease = await held(backend, "one")
        results = await asyncio.gather(
            *(
                one.ledger.commit_checkpoint(lease, START, Checkpoint(n, "ab"[n - 1]))
                for n, one in enumerate([backend, another_backend], 1)
            ),
            return_exceptions=True,
        )
        assert [type(result) for result in results if result is not None] == [LeadershipLost]
        winner = results.index(None) + 1
        assert await checkpoint(backend) == Checkpoint(winner, "ab"[winner - 1])

    async def test_checkpoints_and_dead_letters_are_there_when_the_store_is_opened_again(
        self, backend: Backend, make_backend: MakeBackend
    ) -> None:
        lease = await held(backend, "one")
        await backend.ledger.commit_checkpoint(lease, START, _NINE, [letter(9)])
        await backend.ledger.release_lease(lease)
        await backend.close(5.0)
        again = make_backend()
        await again.open()
        try:
            assert (await held(again, "two")).checkpoint == _NINE
            assert list(await again.ledger.dead_letters("p", 10)) == [letter(9)]
        finally:
            await again.close(5.0)

    async def test_dead_letters_are_listed_in_order_and_removed_once(self, backend: Backend) -> None:
        lease = await held(backend, "one")
        await backend.ledger.commit_checkpoint(lease, START, _NINE, [letter(9), letter(2)])
        await backend.ledger.commit_checkpoint(lease, _NINE, Checkpoint(11, "k"), [letter(11)])
        assert list(await backend.ledger.dead_letters("p", 2)) == [letter(2), letter(9)], (
            "in order of position, up to the limit"
        )
        assert await backend.ledger.dead_letters("another", 2) == []
        assert [record.dead_letters for record in await backend.ledger.projections()] == [3]
        assert await backend.ledger.remove_dead_letter(letter(9))
        assert not await backend.ledger.remove_dead_letter(letter(9)), "the second call finds nothing to delete"
        assert list(await backend.ledger.dead_letters("p", 9)) == [letter(2), letter(11)]

    async def test_a_dead_letter_of_the_same_event_replaces_the_old_one(self, backend: Backend) -> None:
        lease = await held(backend, "one")
        await backend.ledger.commit_checkpoint(lease, START, _THREE, [letter(2, "old")])
        await backend.ledger.commit_checkpoint(lease, _THREE, _FOUR, [letter(2, "new")])
        assert list(await backend.ledger.dead_letters("p", 9)) == [letter(2, "new")]

    async def test_a_reset_deletes_checkpoint_and_dead_letters_but_keeps_the_token(self, backend: Backend) -> None:
        lease = await held(backend, "one")
        await backend.ledger.commit_checkpoint(lease, START, _NINE, [letter(9)])
        with pytest.raises(LeadershipLost, match="stop it"):
            await backend.ledger.reset_projection("p")
        await backend.ledger.release_lease(lease)
        await backend.ledger.reset_projection("p")
        await backend.ledger.reset_projection("unknown")
        assert await backend.ledger.dead_letters("p", 9) == []
        assert await checkpoint(backend) == START
        assert not await backend.ledger.renew_lease(lease, 60)
        assert (await held(backend, "two")).token > lease.token, "a holder from before the reset stays fenced"

    async def test_a_checkpoint_moves_only_to_an_event_that_the_store_holds(self, backend: Backend) -> None:
        lease = await held(backend, "one")
        called: list[object] = []
        for lost in (Checkpoint(3, "x"), Checkpoint(13, "m")):
            with pytest.raises(HistoryDiverged, match=f"position {lost.position}"):
                await backend.ledger.commit_checkpoint(lease, START, lost, [letter(2)])
            with pytest.raises(HistoryDiverged, match=f"position {lost.position}"):
                await backend.ledger.commit_checkpoint(lease, START, lost, (), called.append)
        assert called == [], "the effect of a lost event must not be applied"
        assert await backend.ledger.dead_letters("p", 9) == []
        assert await checkpoint(backend) == START

    async def test_the_next_holder_gets_the_saved_run_state_and_hears_whether_the_lease_was_abandoned(
        self, backend: Backend, another_backend: Backend
    ) -> None:
        old = await held(backend, "one", 0.1)
        assert (old.abandoned, old.state) == (False, RunState())
        state = RunState('{"a": "ä"}', 3, 2)
        await backend.ledger.save_run_state(old, state)
        lease = None
        async with asyncio.timeout(10):
            while lease is None:
                lease = await another_backend.ledger.acquire_lease("p", "two", 60)
                await asyncio.sleep(0.01)
        assert (lease.abandoned, lease.state, lease.seconds) == (True, state, 60)
        with pytest.raises(LeadershipLost):
            await backend.ledger.save_run_state(old, RunState())
        await another_backend.ledger.release_lease(lease)
        with pytest.raises(LeadershipLost):
            await another_backend.ledger.save_run_state(lease, RunState())
        again = await held(backend, "one")
        assert (again.abandoned, again.state) == (False, state), "a released lease is not abandoned"
        assert not (await held(backend, "one")).abandoned, "its owner has come back"
        await backend.ledger.release_lease(await held(backend, "one"))
        await backend.ledger.reset_projection("p")
        assert (await held(backend, "one")).state == RunState(), "a reset forgets it"

    # A read model in the store's own database

    async def test_a_read_model_changes_with_its_checkpoint(self, backend: Backend, read_model: ReadModel | None) -> None:
        model = _given(read_model)
        lease = await held(backend, "one")
        await backend.ledger.commit_checkpoint(lease, START, _THREE, (), lambda transaction: model.write(transaction, 3))
        assert await model.positions() == [3]
        assert await checkpoint(backend) == _THREE

    async def test_a_refused_checkpoint_leaves_the_read_model_as_it_was(
        self, backend: Backend, read_model: ReadModel | None
    ) -> None:
        model = _given(read_model)
        old = await held(backend, "one")
        new = await held(backend, "one")
        for lease, before in ((old, START), (new, _THREE)):
            with pytest.raises(LeadershipLost):
                await backend.ledger.commit_checkpoint(
                    lease, before, _NINE, (), lambda transaction: model.write(transaction, 9)
                )
        assert await model.positions() == [], "a transaction that cannot move the checkpoint is rolled back"

    async def test_an_exception_of_a_handler_is_raised_unchanged_and_rolls_back_everything(
        self, backend: Backend, read_model: ReadModel | None
    ) -> None:
        model = _given(read_model)
        lease = await held(backend, "one")
        error = KeyError("of the handler")

        def fail(transaction: Any) -> Any:
            if (written := model.write(transaction, 3)) is None:
                raise error
            return _then_raise(written, error)

        with pytest.raises(KeyError) as failure:
            await backend.ledger.commit_checkpoint(lease, START, _THREE, [letter(3)], fail)
        assert failure.value is error
        assert await model.positions() == []
        assert await backend.ledger.dead_letters("p", 9) == []
        assert await checkpoint(backend) == START, "read model, dead letters and checkpoint change together or not at all"
        await backend.ledger.commit_checkpoint(
            lease, START, _THREE, [letter(3)], lambda transaction: model.write(transaction, 3)
        )
        with pytest.raises(KeyError):
            await backend.ledger.remove_dead_letter(letter(3), fail)
        assert await backend.ledger.dead_letters("p", 9) == [letter(3)]
        assert await backend.ledger.remove_dead_letter(letter(3), lambda transaction: model.write(transaction, 33))
        assert not await backend.ledger.remove_dead_letter(letter(3), lambda transaction: model.write(transaction, 34))
        assert await model.positions() == [3, 33], "a dead letter is applied once"


async def _then_raise(written: Any, error: Exception) -> None:
    await written
    raise error


def _given(read_model: ReadModel | None) -> ReadModel:
    if read_model is None:
        pytest.skip("this store gives handlers no transaction: read_model is None")
    return read_model
