"""Arguments of a wrong type are refused by the call that gets them, and not by what would use them later."""

from __future__ import annotations

from typing import Any

import pytest

from eventcore import EventStore, OnError, RetryPolicy, Telemetry, open_store
from eventcore.errors import InvalidInput, InvalidMetadata
from tests.projections.models import Seen
from tests.store.bank import Deposit, account


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"retry": 3}, ValueError, r"retry=3; expected a RetryPolicy, such as RetryPolicy\(attempts=3\)"),
        ({"retry": 0}, ValueError, "retry=0; expected a RetryPolicy"),
        ({"timeout": "5"}, ValueError, "timeout='5'; expected seconds, more than 0"),
        ({"parent": "00-1-2-01"}, ValueError, r"parent='00-1-2-01'; expected .* TraceContext\.from_traceparent"),
        ({"headers": 0}, InvalidMetadata, "headers are a mapping of str to str, not int"),
        ({"headers": ()}, InvalidMetadata, "headers are a mapping of str to str, not tuple"),
        ({"idempotency_key": 7}, InvalidMetadata, "idempotency_key is of type int; expected str"),
    ],
)
async def test_execute_refuses_a_wrong_argument_before_it_reads(
    store: EventStore, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        await store.execute(Deposit(account=account("a")), **arguments)
    assert await store.head_position() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": ""}, r"name=''; expected a text that is not empty"),
        ({"name": 3}, r"name=3; expected a text"),
        ({"telemetry": True}, r"telemetry=True; expected a Telemetry"),
        ({"on_config_error": "ignore"}, 'on_config_error=\'ignore\'; expected "raise" or "log"'),
        ({"max_event_bytes": "1 MB"}, "max_event_bytes='1 MB'; expected a number of bytes, 1 or more"),
        ({"max_event_bytes": 0}, "max_event_bytes=0; expected a number of bytes, 1 or more"),
        ({"migrate": "no"}, "migrate='no'; expected True or False"),
        ({"health": {"keep": 1}}, r"health=\{'keep': 1\}; expected HealthSettings\(…\)"),
    ],
)
def test_open_store_refuses_a_wrong_argument_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_store("memory:", **arguments)


def test_a_telemetry_refuses_an_unknown_policy_for_faults() -> None:
    with pytest.raises(ValueError, match='on_config_error=\'warn\'; expected "raise" or "log"'):
        Telemetry(exporters="none", config={}, on_config_error="warn")  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("policy", [RetryPolicy, OnError])
@pytest.mark.parametrize("arguments", [{"base_delay": "1"}, {"max_delay": None}])
def test_delays_of_a_wrong_type_are_refused_when_the_policy_is_made(policy: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected seconds with 0 <= base_delay <= max_delay <= 3600"):
        policy(**arguments)


async def test_a_lease_that_is_no_number_is_refused(store: EventStore) -> None:
    with pytest.raises(ValueError, match=r"lease='5'; expected seconds from 0\.1 to 3600"):
        await store.run(Seen(), lease="5")  # type: ignore[arg-type]  # that is the point


async def test_an_event_id_that_is_no_text_is_refused(store: EventStore) -> None:
    with pytest.raises(InvalidInput, match="has the id 3; expected its event_id"):
        await store.redact(3, data={}, reason="asked for")  # type: ignore[arg-type]  # that is the point
