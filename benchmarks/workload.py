"""The commands of the measurements, and the tasks that send them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Annotated, Any

from eventcore import Command, Event, EventStore, RecordedEvent, StreamId, StreamState, open_store
from eventcore.telemetry import Telemetry

__all__ = [
    "AddItem",
    "AddItems",
    "AddLine",
    "ItemAdded",
    "ItemRemoved",
    "Lines",
    "Load",
    "MoveItem",
    "add_item",
    "add_line",
    "file_store",
    "keep_busy",
    "move_item",
    "order_streams",
]


class ItemAdded(Event):
    """A line was added to an order."""

    number: int
    item: str
    price: int


class ItemRemoved(Event):
    """A line was removed from an order."""

    number: int
    item: str
    price: int


class AddItem(Command[int]):
    """Adds a line to an order: reads and writes one stream."""

    order: StreamId
    item: str
    price: int

    def initial_state(self) -> int:
        return 0

    def apply(self, state: int, event: object) -> int:
        return state + 1

    def handle(self, state: int) -> Iterator[tuple[StreamId, Event]]:
        yield self.order, ItemAdded(number=state + 1, item=self.item, price=self.price)


class MoveItem(Command[int]):
    """Moves a line from one order to another: reads and writes two streams."""

    source: StreamId
    target: StreamId
    item: str
    price: int

    def initial_state(self) -> int:
        return 0

    def apply(self, state: int, event: object) -> int:
        return state + 1

    def handle(self, state: int) -> Iterator[tuple[StreamId, Event]]:
        number = state // 2 + 1
        yield self.source, ItemRemoved(number=number, item=self.item, price=self.price)
        yield self.target, ItemAdded(number=number, item=self.item, price=self.price)


class Lines(StreamState):
    """How many lines an order has."""

    count: int = 0

    def apply(self, event: RecordedEvent) -> None:
        self.count += 1


class AddLine(Command[None]):
    """Adds a line to an order, whose state the store keeps."""

    order: Annotated[StreamId, Lines]
    item: str
    price: int

    def handle(self, state: Any) -> Iterator[tuple[StreamId, Event]]:
        yield self.order, ItemAdded(number=state[self.order].count + 1, item=self.item, price=self.price)


class AddItems(AddItem):
    """Adds several lines at once."""

    lines: int

    def handle(self, state: int) -> Iterator[tuple[StreamId, Event]]:
        for number in range(state + 1, state + self.lines + 1):
            yield self.order, ItemAdded(number=number, item=self.item, price=self.price)


def add_item(order: StreamId) -> AddItem:
    """The command on one stream."""
    return AddItem(order=order, item="lamp", price=4_900)


def add_line(order: StreamId) -> AddLine:
    """The command on one stream, with a state of the stream."""
    return AddLine(order=order, item="lamp", price=4_900)


def move_item(order: StreamId) -> MoveItem:
    """The command on two streams: that of the order, and that of returned lines."""
    return MoveItem(source=order, target=StreamId(f"{order}-back"), item="lamp", price=4_900)


@dataclass(slots=True)
class Load:
    """The commands that were executed, and their durations."""

    commands: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    attempts: int = 0
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Commands per second."""
        return self.commands / self.seconds

    @property
    def cpu(self) -> float:
        """Seconds of processor time for one command, in all threads."""
        return self.cpu_seconds / self.commands

    def latency(self, share: float) -> float:
        """The seconds within which the given share of the commands ended."""
        return sorted(self.latencies)[min(int(len(self.latencies) * share), len(self.latencies) - 1)]


@asynccontextmanager
async def file_store(telemetry: Telemetry) -> AsyncIterator[EventStore]:
    """A store in a new file with ``synchronous=FULL``. The file is removed afterwards."""
    with TemporaryDirectory(prefix="eventcore-benchmark-") as directory:
        async with open_store(f"sqlite:///{Path(directory) / 'orders.db'}", telemetry=telemetry) as store:
            yield store


def order_streams(lines: int = 10, name: str = "order") -> Callable[[], StreamId]:
    """A function that returns the stream of the next command: each task has its own, and a new one after ``lines`` commands."""
    sender = itertools.count()

    def next_sender() -> Callable[[], StreamId]:
        number, sent = next(sender), itertools.count()
        return lambda: StreamId(f"{name}-{number}-{next(sent) // lines}")

    senders: dict[asyncio.Task[object] | None, Callable[[], StreamId]] = {}

    def stream() -> StreamId:
        task = asyncio.current_task()
        if task not in senders:
            senders[task] = next_sender()
        return senders[task]()

    return stream


async def keep_busy(
    store: EventStore,
    concurrency: int,
    stream: Callable[[], StreamId],
    go_on: Callable[[int], bool],
    command: Callable[[StreamId], Command[Any]] = add_item,
) -> Load:
    """Run senders with one command at a time each, while ``go_on``, called with the number of commands begun, returns true."""
    load, begun = Load(), 0

    async def send() -> None:
        nonlocal begun
        while go_on(begun):
            begun += 1
            sent = perf_counter()
            result = await store.execute(command(stream()))
            load.latencies.append(perf_counter() - sent)
            load.attempts = max(load.attempts, result.attempts)

    start, cpu = perf_counter(), process_time()
    async with asyncio.TaskGroup() as senders:
        for _ in range(concurrency):
            senders.create_task(send())
    load.seconds, load.cpu_seconds = perf_counter() - start, process_time() - cpu
    load.commands = len(load.latencies)
    return load
