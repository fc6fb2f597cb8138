"""What all contenders on one server have in common: a turn and its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

__all__ = ["STREAMS", "Contender", "Streams", "Turn", "share"]

Streams = Literal[1, 2]
STREAMS: Final[tuple[Streams, ...]] = (1, 2)


@dataclass(frozen=True, slots=True)
class Turn:
    """The result of one turn: ``rate`` in commands per second, latencies and CPU in seconds for one command."""

    rate: float
    p50: float
    p99: float
    client_cpu: float
    server_cpu: float

    @classmethod
    def of(cls, latencies: Sequence[float], seconds: float, commands: int, client_cpu: float, server_cpu: float) -> Turn:
        """The result from the latencies within ``seconds`` and the processor time of all ``commands``, warm-up included."""
        return cls(
            len(latencies) / seconds,
            share(latencies, 0.5),
            share(latencies, 0.99),
            client_cpu / commands,
            server_cpu / commands,
        )


class Contender(Protocol):
    """Executes commands. Each command reads its streams and adds an event to each of them."""

    @property
    def name(self) -> str:
        """The name in the table."""
        ...

    @property
    def concurrency(self) -> Sequence[int]:
        """The number of commands at once."""
        ...

    def turn(self, streams: Streams, concurrency: int, seconds: float) -> Turn:
        """Execute commands for some seconds after a warm-up, and verify that their events are in the database.

        Raises:
            RuntimeError: events are missing.
        """
        ...


def share(values: Sequence[float], part: float) -> float:
    """The value below which the given share of the values lies."""
    return sorted(values)[min(int(len(values) * part), len(values) - 1)]
