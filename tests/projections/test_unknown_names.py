"""A name that no projection has is refused with the nearest name; one that only has not run yet is not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from eventcore import EventStore, Projection, RecordedEvent
from eventcore.errors import InvalidInput, InvalidProjection, ProjectionTimeout
from tests.projections.conftest import Run
from tests.projections.models import Seen, deposit

CALLS: dict[str, Callable[[EventStore, str], Awaitable[object]]] = {
    "dead_letters": lambda store, name: store.dead_letters(name),
    "reset_projection": lambda store, name: store.reset_projection(name),
}
calls = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


class Quiet(Projection):
    """Declared here, and run by no test."""

    name = "quiet"
    version = 2

    def handle(self, event: RecordedEvent) -> None: ...


async def has_run(store: EventStore, run: Run) -> None:
    seen = Seen()
    task = run(store, seen)
    await store.wait_for(seen, await deposit(store, 1))
    task.cancel()
    await asyncio.wait([task])


@calls
async def test_a_misspelt_name_is_refused_with_the_nearest_one(
    store: EventStore, run: Run, call: Callable[[EventStore, str], Awaitable[object]]
) -> None:
    await has_run(store, run)
    with pytest.raises(InvalidInput, match=r"no projection 'sene' .*; known are: .*; did you mean 'seen'\?"):
        await call(store, "sene")
    with pytest.raises(InvalidInput, match=r"no projection 'seen@3' .*; known are: .*; did you mean 'seen'\?"):
        await call(store, "seen@3")


@calls
async def test_a_name_is_known_when_the_store_or_a_class_of_this_process_has_it(
    store: EventStore, run: Run, call: Callable[[EventStore, str], Awaitable[object]]
) -> None:
    await call(store, "quiet@2")
    await has_run(store, run)
    await call(store, "seen")


@calls
async def test_a_name_is_known_before_the_first_run_of_its_projection_has_a_lease(
    store: EventStore, run: Run, call: Callable[[EventStore, str], Awaitable[object]]
) -> None:
    seen = Seen()
    # The name of this instance is in no class.
    seen.name = "seen-by-an-instance"
    with pytest.raises(InvalidInput, match="no projection 'seen-by-an-instance'"):
        await call(store, "seen-by-an-instance")
    task = run(store, seen)
    await asyncio.sleep(0)
    await CALLS["dead_letters"](store, "seen-by-an-instance")
    task.cancel()
    await asyncio.wait([task])
    await call(store, "seen-by-an-instance")


async def test_an_instance_needs_no_record_in_the_store(store: EventStore) -> None:
    seen = Seen()
    seen.name = "never-run"
    assert list(await store.dead_letters(seen)) == []
    await store.reset_projection(seen)


async def test_waiting_for_a_name_that_nobody_knows_says_so_when_the_time_is_up(store: EventStore, run: Run) -> None:
    await has_run(store, run)
    with pytest.raises(ProjectionTimeout, match=r"it has never run; known are: .*; did you mean 'seen'\?"):
        await store.wait_for("sene", 1, timeout=0)
    with pytest.raises(ProjectionTimeout, match=r"it has never run$"):
        await store.wait_for("quiet@2", 1, timeout=0)


async def test_what_is_neither_a_name_nor_a_projection_is_refused(store: EventStore) -> None:
    for wrong in (7, None, object):
        for call in (store.dead_letters, store.reset_projection, lambda projection: store.wait_for(projection, 1, 0)):
            with pytest.raises(InvalidProjection, match=r"expected the name of a projection, or an instance"):
                await call(wrong)  # type: ignore[arg-type]  # that is the point
