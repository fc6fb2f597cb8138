"""Measures in turns: one round of each contender after the other, so that noise affects all of them.

Progress is printed to stderr, and results to stdout.
"""

from __future__ import annotations

import gc
import sys
import timeit
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter, strftime
from typing import Any, final

import pyperf  # type: ignore[import-untyped]  # it has no annotations

__all__ = ["Effort", "Series", "announce", "calibrated", "in_turns", "of_statements"]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure: ``rounds`` for each contender, each about ``seconds`` long.

    Attributes:
        quick: short rounds; the figures are rough.
        events: how many events the part ``volume`` loads; ``None`` for its default.
    """

    rounds: int
    seconds: float
    quick: bool
    events: int | None = None


@final
class Series:
    """The values of one contender, one for each round. Statistics and metadata come from pyperf."""

    def __init__(self, name: str, values: Sequence[float]) -> None:
        self.name = name
        self.values = tuple(values)
        self.benchmark = pyperf.Benchmark([pyperf.Run(self.values, metadata={"name": name}, collect_metadata=False)])

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return float(self.benchmark.median())

    @property
    def spread(self) -> float:
        """The median deviation from the median, as a share of it."""
        return float(self.benchmark.median_abs_dev()) / self.median

    def ratio(self, other: Series) -> float:
        """The median of the ratios of each round: noise in a round affects both sides."""
        return median(mine / theirs for mine, theirs in zip(self.values, other.values, strict=True))


def in_turns(contenders: Mapping[str, Callable[[], float]], rounds: int, *, warm_up: bool = True) -> dict[str, Series]:
    """Call every contender once in each round, in order, and keep the results. ``warm_up`` adds a first round and drops it."""
    values: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + warm_up):
        announce(f"  round {number + 1} of {rounds + warm_up}, of each: {_shortened(list(contenders))}")
        for name, run in contenders.items():
            gc.collect()
            value = run()
            if number or not warm_up:
                values[name].append(value)
    return {name: Series(name, kept) for name, kept in values.items()}


def announce(what: str) -> None:
    """Print to stderr which measurement begins."""
    print(f"{strftime('%H:%M:%S')}  {what}", file=sys.stderr, flush=True)


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} … {names[-1]} ({len(names)})"


def of_statements(statements: Sequence[str], names: Mapping[str, Any]) -> Callable[[int], float]:
    """A function that runs the statements in a loop and returns the seconds for one of them.

    The body of the loop has all statements, so that the loop itself costs little. The garbage collector stays on.
    """
    timer = timeit.Timer("\n".join(statements), "gc.enable()", perf_counter, globals={**names, "gc": gc})
    return lambda number: timer.timeit(number) / number / len(statements)


def calibrated(run: Callable[[int], float], statements: int, seconds: float) -> Callable[[], float]:
    """Call ``run`` with a number of loops that takes about ``seconds``."""
    number = 100
    while (estimate := run(number) * statements * number) < seconds / 20:
        number *= 4
    loops = max(1, round(number * seconds / estimate))
    return lambda: run(loops)
