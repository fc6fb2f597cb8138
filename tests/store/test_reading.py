from __future__ import annotations

import pytest

from eventcore import EventStore
from eventcore.errors import InvalidPattern, InvalidStreamId
from tests.store.bank import account


async def test_wrong_arguments_are_refused(store: EventStore) -> None:
    with pytest.raises(InvalidPattern):
        [event async for event in store.read_all(pattern="[")]
    with pytest.raises(ValueError, match="after=-1; expected an int, 0 or more"):
        [event async for event in store.read_all(after=-1)]
    with pytest.raises(ValueError, match="limit=-1"):
        [event async for event in store.read(account("a"), limit=-1)]
    with pytest.raises(InvalidStreamId):
        [event async for event in store.read("a b")]  # type: ignore[arg-type]  # that is the point
