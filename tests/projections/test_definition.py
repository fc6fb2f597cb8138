"""A projection that cannot work is refused before it runs; the message says what was expected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from eventcore import EventStore, OnError, Projection, RecordedEvent, open_store
from eventcore.errors import InvalidProjection
from tests.projections.models import Seen


def declared(**attributes: Any) -> Projection:
    """A working projection, with these attributes replaced."""

    def handle(self: Projection, event: RecordedEvent) -> None:
        pass

    return type("Mine", (Projection,), {"name": "mine", "handle": handle, **attributes})()  # type: ignore[no-any-return]  # it is one


def yields(self: Projection, event: RecordedEvent) -> Iterator[int]:
    yield 1


def with_session(self: Projection, event: RecordedEvent, session: object) -> None:
    pass


def with_everything(self: Projection, *events: RecordedEvent) -> None:
    pass


def with_nothing(self: Projection) -> None:
    pass


async def inside(self: Projection, event: RecordedEvent, transaction: object) -> None:
    pass


def together(self: Projection, events: Sequence[RecordedEvent]) -> None:
    pass


@pytest.mark.parametrize(
    ("projection", "message"),
    [
        pytest.param(Seen, "pass an instance of a class derived from Projection", id="a class"),
        pytest.param(7, "7 is no projection", id="something else"),
        pytest.param(declared(name="Balances"), "name is 'Balances'; expected 1 to 128 characters of a-z", id="capitals"),
        pytest.param(declared(name="a" * 129), "expected 1 to 128 characters", id="a long name"),
        pytest.param(declared(name="mine@2"), "name is 'mine@2'", id="a version in the name"),
        pytest.param(declared(name=None), "name is None", id="no name"),
        pytest.param(declared(version=0), "version is 0; expected an int from 1", id="version 0"),
        pytest.param(declared(version="2"), "version is '2'", id="a version of text"),
        pytest.param(declared(pattern="[z-a]"), "pattern '[z-a]'", id="no pattern"),
        pytest.param(declared(event_types="Deposited"), "expected a sequence of event classes", id="a text of types"),
        pytest.param(declared(event_types=[RecordedEvent]), "expected event classes or stored types", id="no event class"),
        pytest.param(declared(event_types=["bank.Deposit"]), "did you mean 'bank.Deposited'?", id="a misspelt type"),
        pytest.param(declared(event_types=["a b"], unknown="raw"), "without white space", id="a type with white space"),
        pytest.param(declared(pattern="account 7"), "no stream id has ' '", id="a pattern that fits no stream"),
        pytest.param(declared(event_types=[]), "event_types is empty", id="no types"),
        pytest.param(declared(on_error="skip"), r"on_error is 'skip'; expected an OnError\(...\)", id="a policy of text"),
        pytest.param(declared(batch_size=0), "batch_size is 0; expected an int from 1 to 10000", id="empty batches"),
        pytest.param(declared(handle=None), "has no handle and no handle_batch; expected one of them", id="no method"),
        pytest.param(declared(handle_batch=together), "has both handle and handle_batch", id="two methods"),
        pytest.param(declared(handle=yields), "handle yields, so that calling it does nothing", id="a generator"),
        pytest.param(declared(handle=with_session), r"handle takes \(event.*session.*\); expected \(event\), ", id="session"),
        pytest.param(declared(handle=with_everything), r"expected \(event\), \(event, transaction\)", id="any number"),
        pytest.param(declared(handle=with_nothing), r"handle takes \(\)", id="no argument"),
    ],
)
async def test_a_projection_that_cannot_work_is_refused(store: EventStore, projection: Any, message: str) -> None:
    with pytest.raises(InvalidProjection, match=message.replace("[z-a]", r"\[z-a\]")):
        await store.run(projection)
    assert await store.projections() == []


async def test_sqlite_gives_its_transaction_to_plain_methods_only(sqlite_url: str) -> None:
    async with open_store(sqlite_url, exporters=[]) as store:
        with pytest.raises(InvalidProjection, match="handle takes a transaction, which sqlite gives to def methods only"):
            await store.run(declared(handle=inside))


@pytest.mark.parametrize("lease", [0, -1, 3601, float("nan")])
async def test_a_lease_out_of_range_is_refused(store: EventStore, lease: float) -> None:
    with pytest.raises(ValueError, match=r"expected seconds from 0\.1 to 3600"):
        await store.run(Seen(), lease=lease)


@pytest.mark.parametrize(
    "arguments", [{"retries": -1}, {"retries": 1.5}, {"base_delay": 2, "max_delay": 1}, {"then": "ignore"}, {"max_delay": 9999}]
)
def test_a_policy_out_of_range_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="OnError: "):
        OnError(**arguments)


def test_a_delay_is_between_half_of_its_limit_and_the_limit() -> None:
    policy = OnError(base_delay=0.1, max_delay=1.0)
    for retry, limit in ((1, 0.1), (2, 0.2), (3, 0.4), (5, 1.0), (500, 1.0)):
        assert all(limit / 2 <= policy.delay(retry) <= limit for _ in range(50))


@pytest.mark.parametrize("name", ["Balances", "balances@0", "balances@", "", "balances@2@3"])
async def test_a_name_that_no_projection_can_have_is_refused(store: EventStore, name: str) -> None:
    with pytest.raises(InvalidProjection, match="is no name of a projection; expected name, or name@version"):
        await store.wait_for(name, 1)
