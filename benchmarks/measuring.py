"""Measuring in turns: one round of each contender after the other, so that noise falls on all of them.

How far it has come is told on stderr, which leaves stdout to the results.
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
    """How much to measure: ``rounds`` of each contender, each about ``seconds`` long."""

    rounds: int
    seconds: float
    quick: bool


@final
class Series:
    """The values of one contender, one a round; kept as a pyperf benchmark, whose statistics and metadata these are."""

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
        """This to the other: the median of the rounds' ratios, for what disturbs a round disturbs both."""
        return median(mine / theirs for mine, theirs in zip(self.values, other.values, strict=True))


def in_turns(contenders: Mapping[str, Callable[[], float]], rounds: int, *, warm_up: bool = True) -> dict[str, Series]:
    """Call every contender once per round, in order, and keep what each returns; a first round may be thrown away."""
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
    """Tell whoever waits what comes now."""
    print(f"{strftime('%H:%M:%S')}  {what}", file=sys.stderr, flush=True)


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} … {names[-1]} ({len(names)})"


def of_statements(statements: Sequence[str], names: Mapping[str, Any]) -> Callable[[int], float]:
    """A function that runs the statements so many times and gives the seconds that one of them takes.

    They stand one after the other in the loop, so that the loop itself weighs little; the garbage collector stays on.
    """
    timer = timeit.Timer("\n".join(statements), "gc.enable()", perf_counter, globals={**names, "gc": gc})
    return lambda number: timer.timeit(number) / number / len(statements)


def calibrated(run: Callable[[int], float], statements: int, seconds: float) -> Callable[[], float]:
    """``run`` with a number of loops that takes about ``seconds``."""
    number = 100
    while (estimate := run(number) * statements * number) < seconds / 20:
        number *= 4
    loops = max(1, round(number * seconds / estimate))
    return lambda: run(loops)
