"""Leases, checkpoints and dead letters: one leads, its token is the fence, and what is committed together stands together."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import pytest

from eventcore.errors import LeadershipLost
from eventcore.stores import START, Backend, Checkpoint, DeadLetter, Lease, ProjectionRecord
from eventcore.testing.contract.fixtures import ContractFixtures, MakeBackend, ReadModel

_THREE: Final = Checkpoint(3, "c")
_FOUR: Final = Checkpoint(4, "d")
_NINE: Final = Checkpoint(9, "i")


async def held(backend: Backend, owner: str, seconds: float = 60.0, projection: str = "p") -> Lease:
    """A lease that must be free."""
    lease = await backend.ledger.acquire_lease(projection, owner, seconds)
    assert lease is not None, f"the lease of {projection!r} is free for {owner!r}"
    return lease


async def checkpoint(backend: Backend) -> Checkpoint:
    """Where the only projection stands."""
    [record] = await backend.ledger.projections()
    return record.checkpoint


def letter(position: int, error: str = "bad: ä\U0001f600") -> DeadLetter:
    """An event that could not be applied."""
    return DeadLetter("p", position, f"id-{position}", "ValueError", error, 3, 1_700_000_000_123_456_789)


class LeaseContract(ContractFixtures):
    """What ``Backend`` keeps for projections."""

    async def test_a_lease_has_one_holder_and_a_new_token_each_time(self, backend: Backend) -> None:
        lease = await held(backend, "one")
        assert (lease.projection, lease.checkpoint) == ("p", START), "a projection begins before the first event"
        assert await backend.ledger.acquire_lease("p", "two", 60) is None, "while one holds the lease, no other gets it"
        again = await held(backend, "one")
        assert again.token > lease.token, "tokens grow, also for the same owner"
        assert not await backend.ledger.renew_lease(lease, 60), "only the newest token counts"
        await backend.ledger.release_lease(lease)
        assert await backend.ledger.acquire_lease("p", "two", 60) is None, "who has an old token cannot give the lease away"
        assert await backend.ledger.renew_lease(again, 60)

    async def test_projections_have_leases_of_their_own(self, backend: Backend) -> None:
        await held(backend, "one", projection="p")
        await held(backend, "two", projection="p@2")
        assert [record.name for record in await backend.ledger.projections()] == ["p", "p@2"]

    async def test_of_many_that_ask_at_once_one_gets_the_lease(self, backend: Backend, another_backend: Backend) -> None:
        asked = [
            one.ledger.acquire_lease("p", f"owner-{number}", 60) for number, one in enumerate([backend, another_backend] * 5)
        ]
        leases = [lease for lease in await asyncio.gather(*asked) if lease is not None]
        assert len(leases) == 1, f"one leads, not {leases}"

    async def test_a_lease_that_is_given_back_is_free_at_once(self, backend: Backend, another_backend: Backend) -> None:
        first = await held(backend, "one")
        await backend.ledger.release_lease(first)
        assert await backend.ledger.projections() == [ProjectionRecord("p", START, "", first.token, 0.0, 0)]
        second = await held(another_backend, "two")
        assert second.token > first.token
        [record] = await backend.ledger.projections()
        assert (record.owner, record.token) == ("two", second.token), "who leads is visible"
        assert 50 < record.lease_left <= 60

    async def test_a_lease_that_has_run_out_is_free_and_its_holder_is_fenced(
        self, backend: Backend, another_backend: Backend
    ) -> None:
        old = await held(backend, "one", 0.1)
        await backend.ledger.commit_checkpoint(old, START, _THREE)
        lease = None
        async with asyncio.timeout(10):
            while lease is None:
                lease = await another_backend.ledger.acquire_lease("p", "two", 60)
                await asyncio.sleep(0.01)
        assert lease.checkpoint == _THREE, "the next one goes on where the last has come to"
        assert not await backend.ledger.renew_lease(old, 60)
        called: list[object] = []
        with pytest.raises(LeadershipLost, match="'p'"):
            await backend.ledger.commit_checkpoint(old, _THREE, _FOUR, (), called.append)
        await another_backend.ledger.commit_checkpoint(lease, _THREE, _FOUR)
        assert await checkpoint(backend) == _FOUR

    async def test_a_lease_that_is_renewed_does_not_run_out(self, backend: Backend, another_backend: Backend) -> None:
        lease = await held(backend, "one", 0.5)
        assert await backend.ledger.renew_lease(lease, 60)
        await asyncio.sleep(0.6)  # longer than the lease was for at first
        assert await another_backend.ledger.acquire_lease("p", "two", 60) is None

    async def test_a_checkpoint_moves_only_from_where_it_stands(self, backend: Backend) -> None:
        lease = await held(backend, "one")
        await backend.ledger.commit_checkpoint(lease, START, _THREE)
        for before in (START, Checkpoint(3, "x"), Checkpoint(2, "c")):
            with pytest.raises(LeadershipLost):
                await backend.ledger.commit_checkpoint(lease, before, _NINE, [letter(9)])
        assert await backend.ledger.dead_letters("p", 10) == [], "nothing of a refused commit stands"
        await backend.ledger.release_lease(lease)
        with pytest.raises(LeadershipLost):
            await backend.ledger.commit_checkpoint(lease, _THREE, _FOUR)
        assert await checkpoint(backend) == _THREE

    async def test_of_two_commits_from_one_checkpoint_one_wins(self, backend: Backend, another_backend: Backend) -> None:
        lease = await held(backend, "one")
        results = await asyncio.gather(
            *(
                one.ledger.commit_checkpoint(lease, START, Checkpoint(n, str(n)))
                for n, one in enumerate([backend, another_backend], 1)
            ),
            return_exceptions=True,
        )
        assert [type(result) for result in results if result is not None] == [LeadershipLost]
        winner = results.index(None) + 1
        assert await checkpoint(backend) == Checkpoint(winner, str(winner))

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
        assert not await backend.ledger.remove_dead_letter(letter(9)), "of two that remove it one is told so"
        assert list(await backend.ledger.dead_letters("p", 9)) == [letter(2), letter(11)]

    async def test_a_dead_letter_that_fails_again_after_a_rebuild_takes_the_place_of_the_old_one(
        self, backend: Backend
    ) -> None:
        lease = await held(backend, "one")
        await backend.ledger.commit_checkpoint(lease, START, _THREE, [letter(2, "old")])
        await backend.ledger.commit_checkpoint(lease, _THREE, _FOUR, [letter(2, "new")])
        assert list(await backend.ledger.dead_letters("p", 9)) == [letter(2, "new")]

    async def test_a_reset_forgets_all_but_the_fence(self, backend: Backend) -> None:
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
        assert (await held(backend, "two")).token > lease.token, "also then an old holder is fenced"

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
        assert await model.positions() == [], "what was written in a transaction that did not move the checkpoint is gone"

    async def test_what_a_handler_raises_comes_out_as_it_is_and_undoes_everything(
        self, backend: Backend, read_model: ReadModel | None
    ) -> None:
        model = _given(read_model)
        lease = await held(backend, "one")
        mine = KeyError("the handler's")

        def fail(transaction: Any) -> Any:
            if (written := model.write(transaction, 3)) is None:
                raise mine
            return _then_raise(written, mine)

        with pytest.raises(KeyError) as failure:
            await backend.ledger.commit_checkpoint(lease, START, _THREE, [letter(3)], fail)
        assert failure.value is mine
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
