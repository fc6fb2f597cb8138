"""The queue of spans that an exporter and its successors share: an account that is exact to the span."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from eventcore.exporting.delivery.span_queue import SpanCounts, SpanQueue
from eventcore.recording import IdGenerator, RateSampler, Tracer
from eventcore.recording.spans import Span

TRACER = Tracer(RateSampler("all"), IdGenerator())


def spans(*names: object) -> list[Span]:
    return [TRACER.span(str(name)) for name in names]


def names(found: Sequence[Span]) -> list[str]:
    return [span.data().name for span in found]


def account(queue: SpanQueue) -> dict[str, int]:
    counts: SpanCounts = queue.counts()
    assert counts.recorded == counts.exported + sum(counts.dropped.values()) + counts.unknown + counts.pending
    unknown = {"unknown": counts.unknown} if counts.unknown else {}
    return {"exported": counts.exported, "pending": counts.pending} | unknown | {k: v for k, v in counts.dropped.items() if v}


def test_a_batch_stays_in_flight_until_it_is_committed() -> None:
    queue = SpanQueue(10)
    queue.offer(spans(*"abcde"))
    assert names(queue.take(3)) == names(queue.take(3)) == ["a", "b", "c"]
    assert (len(queue), queue.in_flight) == (5, 3)
    queue.commit(2)
    assert names(queue.take(3)) == ["c"]
    queue.commit(5, rejected=1)
    assert account(queue) == {"exported": 2, "rejected": 1, "pending": 2}


def test_a_queue_that_is_full_drops_new_spans_under_the_reason_of_its_worker() -> None:
    queue = SpanQueue(2)
    queue.offer(spans("a"))
    queue.take(1)
    queue.offer(spans("b", "c"), lost=3)
    queue.token.full_because = "budget"
    queue.offer(spans("d"))
    assert account(queue) == {"exported": 0, "queue_full": 4, "budget": 1, "pending": 2}


def test_a_call_with_an_unknown_outcome_is_made_once_more_and_then_counted_as_unknown() -> None:
    queue = SpanQueue(10)
    queue.offer(spans(*"abcd"))
    queue.take(3)
    queue.hand(2)
    assert queue.fail(outcome_unknown=True) == 0
    assert names(queue.take(3)) == ["a", "b", "c"]
    queue.hand(3)
    # A failure that is certain in between is no further call that may have arrived.
    assert queue.fail(outcome_unknown=False) == 0
    queue.take(3)
    queue.hand(3)
    assert queue.fail(outcome_unknown=True) == 2
    assert names(queue.take(3)) == ["c"]
    queue.hand(1)
    assert queue.fail(outcome_unknown=True) == 1
    assert account(queue) == {"exported": 0, "unknown": 3, "pending": 1}


def test_what_may_have_arrived_is_unknown_and_not_dropped_when_it_is_given_up() -> None:
    for end in (SpanQueue.give_up, SpanQueue.close):
        queue = SpanQueue(10)
        queue.offer(spans(*"abc"))
        queue.take(3)
        queue.hand(1)
        queue.fail(outcome_unknown=True)
        end(queue)
        assert account(queue)["unknown"] == 1
        assert sum(queue.counts().dropped.values()) == 2


def test_what_may_have_arrived_is_unknown_when_the_second_call_is_refused() -> None:
    queue = SpanQueue(10)
    queue.offer(spans(*"abcd"))
    queue.take(4)
    queue.hand(3)
    queue.fail(outcome_unknown=True)
    queue.take(4)
    queue.hand(4)
    # Which spans the backend refused is not known: at most three of them may have arrived before.
    queue.commit(4, rejected=4)
    assert account(queue) == {"exported": 0, "unknown": 3, "rejected": 1, "pending": 0}


def test_a_successor_sends_what_its_predecessor_may_have_delivered_once_more_only() -> None:
    old = SpanQueue(10)
    old.offer(spans("a", "b"))
    old.take(10)
    old.hand(2)
    new = old.successor(10)
    new.take_over()
    assert names(new.take(10)) == ["a", "b"]
    new.hand(2)
    assert new.fail(outcome_unknown=True) == 2
    assert account(new) == {"exported": 0, "unknown": 2, "pending": 0}


def test_a_batch_that_is_given_up_is_dropped() -> None:
    queue = SpanQueue(10)
    queue.offer(spans("a", "b", "c"))
    queue.take(2)
    assert queue.give_up() == 2
    assert queue.give_up() == 0
    assert account(queue) == {"exported": 0, "gave_up": 2, "pending": 1}


def test_a_closed_queue_drops_what_it_has_and_all_that_follows() -> None:
    queue = SpanQueue(10)
    queue.offer(spans("a", "b", "c"))
    queue.take(2)
    queue.close()
    queue.commit(2)
    queue.offer(spans("d"), lost=1)
    assert queue.take(10) == []
    assert account(queue) == {"exported": 0, "shutdown": 5, "pending": 0}


def test_a_predecessor_delivers_what_was_offered_before_its_replacement_and_nothing_more() -> None:
    old = SpanQueue(10)
    old.offer(spans("a", "b"))
    new = old.successor(10)
    new.offer(spans("c"))
    assert (len(old), len(new)) == (2, 0)
    assert new.take(10) == []
    assert names(old.take(10)) == ["a", "b"]
    old.commit(2)
    assert (len(old), old.take(10)) == (0, [])
    new.take_over()
    assert names(new.take(10)) == ["c"]
    new.commit(1)
    assert account(new) == account(old) == {"exported": 3, "pending": 0}


def test_a_late_commit_of_a_predecessor_changes_nothing() -> None:
    old = SpanQueue(10)
    old.offer(spans("a", "b"))
    old.take(10)
    new = old.successor(10)
    new.offer(spans("c"))
    new.take_over()
    assert (len(old), old.in_flight) == (0, 0)
    old.commit(2, rejected=1)
    assert old.give_up() == 0
    assert account(new) == {"exported": 0, "pending": 3}
    assert names(new.take(10)) == ["a", "b", "c"]
    old.commit(2, rejected=1)
    assert old.give_up() == 0
    old.close()
    assert account(new) == {"exported": 0, "pending": 3}
    assert (old.in_flight, new.in_flight) == (0, 3)


def test_a_commit_before_the_take_over_counts() -> None:
    old = SpanQueue(10)
    old.offer(spans("a", "b", "c"))
    old.take(2)
    new = old.successor(10)
    old.commit(1)
    new.take_over()
    assert names(new.take(10)) == ["b", "c"]
    assert account(new) == {"exported": 1, "pending": 2}


def test_spans_that_reach_a_replaced_queue_are_the_successors() -> None:
    old = SpanQueue(10)
    new = old.successor(10)
    old.offer(spans("a"))
    assert len(old) == 0
    new.take_over()
    assert names(new.take(10)) == ["a"]


def test_what_waits_for_a_predecessor_takes_no_room_from_the_successor() -> None:
    old = SpanQueue(3)
    old.offer(spans("a", "b", "c"))
    new = old.successor(2)
    new.offer(spans("d", "e", "f"))
    assert account(new) == {"exported": 0, "queue_full": 1, "pending": 5}
    old.take(3)
    old.commit(3)
    new.take_over()
    assert names(new.take(10)) == ["d", "e"]


def test_a_successor_with_a_smaller_capacity_keeps_its_own_spans_and_the_oldest_inherited_ones() -> None:
    old = SpanQueue(10)
    old.offer(spans(*"abcdef"))
    old.take(2)
    new = old.successor(5)
    new.offer(spans("x", "y"))
    new.take_over()
    assert account(new) == {"exported": 0, "queue_full": 3, "pending": 5}
    assert names(new.take(10)) == ["a", "b", "c", "x", "y"]
    new.offer(spans("z"))
    assert account(new)["queue_full"] == 4


def test_a_successor_with_a_larger_capacity_uses_it() -> None:
    old = SpanQueue(1)
    old.offer(spans("a"))
    new = old.successor(3)
    new.take_over()
    new.offer(spans("b", "c", "d"))
    assert account(new) == {"exported": 0, "queue_full": 1, "pending": 3}


def test_three_in_a_row_hand_everything_on() -> None:
    first = SpanQueue(10)
    first.offer(spans("a"))
    first.take(1)
    second = first.successor(10)
    second.offer(spans("b"))
    third = second.successor(10)
    third.offer(spans("c"))
    assert (len(first), len(second), len(third)) == (1, 0, 0)
    second.take_over()
    first.commit(1)
    assert len(second) == 2
    third.take_over()
    second.take_over()  # late: it does not take the queue back
    assert names(third.take(10)) == ["a", "b", "c"]
    assert second.take(10) == []
    third.commit(3)
    assert account(third) == {"exported": 3, "pending": 0}


def test_closing_a_successor_before_it_took_over_drops_also_what_its_predecessor_has_in_flight() -> None:
    old = SpanQueue(10)
    old.offer(spans("a", "b"))
    old.take(1)
    new = old.successor(10)
    new.offer(spans("c"))
    old.close()  # a replaced queue is its successor's to close
    assert account(new) == {"exported": 0, "pending": 3}
    new.close()
    old.commit(1)
    new.take_over()
    assert account(new) == {"exported": 0, "shutdown": 3, "pending": 0}


def test_a_queue_whose_predecessor_was_closed_takes_spans() -> None:
    old = SpanQueue(10)
    old.offer(spans("a"))
    old.close()
    new = old.successor(10)
    new.take_over()
    new.offer(spans("b"))
    assert account(new) == {"exported": 0, "shutdown": 1, "pending": 1}


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_in_whatever_order_the_account_is_exact(seed: int) -> None:
    chance = random.Random(seed)
    queues = [SpanQueue(20)]
    offered = 0
    for _ in range(500):
        queue = chance.choice(queues[-3:])
        match chance.randrange(11):
            case 0 | 1:
                count, lost = chance.randrange(15), chance.randrange(2)
                queue.offer(spans(*range(count)), lost)
                offered += count + lost
            case 2 | 3:
                assert len(queue.take(chance.randrange(1, 10))) <= 20
            case 4 | 5:
                count = chance.randrange(10)
                queue.commit(count, chance.randrange(count + 1))
            case 6:
                queue.hand(chance.randrange(12))
            case 7:
                queue.fail(outcome_unknown=chance.random() < 0.5)
            case 8:
                batch = queue.top_up(chance.randrange(1, 15))
                queue.settle(chance.sample(batch, len(batch) // 3), exported=chance.random() < 0.5)
            case 9:
                queue.take_over() if chance.random() < 0.5 else queue.give_up()
            case _:
                if chance.random() < 0.2:
                    queues.append(queues[-1].successor(chance.randrange(1, 40)))
        account(queue)
        assert queue.counts().recorded == offered
        assert sum(len(queue) for queue in queues) <= queue.counts().pending
        assert queue.pending_before(queue.mark()) <= queue.counts().pending
    queues[-1].take_over()
    queues[-1].close()
    assert account(queues[0])["pending"] == 0
