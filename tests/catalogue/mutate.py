"""Changes each field of each metric once, generates the documentation again, and runs the tests of this folder.

``python -m tests.catalogue.mutate`` prints how many of the mutants a test has killed and which have survived; it fails if one
has. Descriptions are left out: their wording may improve, and the documentation follows. Each mutant runs in a forked process.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import hypothesis  # noqa: F401  # imported once here, and not in each mutant
import pytest

from eventcore.catalogue import CATALOGUE
from eventcore.catalogue.declaring import Counter, Gauge, Histogram, Metric, MetricGroup, UpDownCounter
from eventcore.catalogue.metrics import GROUPS
from eventcore.recording import Label
from tests.catalogue import generate

TESTS: Final = ["tests/catalogue/test_contract.py", "tests/catalogue/test_generated.py"]
# Hypothesis is imported before the fork, so pytest warns that it cannot rewrite the assertions in it.
OPTIONS: Final = ["-q", "-x", "-o", "timeout=30", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]

Mutants = dict[str, Callable[[], None]]


def mutants() -> Mutants:
    """What to do for each mutant, by its name."""
    return {
        f"{metric.name}: {what}": change
        for group in GROUPS
        for attribute, metric in group.metrics().items()
        for what, change in _changes(group, attribute, metric)
    }


def _changes(group: type[MetricGroup], attribute: str, metric: Metric[Any]) -> Iterator[tuple[str, Callable[[], None]]]:
    def set_field(name: str, value: object) -> Callable[[], None]:
        return lambda: setattr(metric, name, value)

    yield "name", set_field("name", f"{metric.name}.more")
    yield "unit", set_field("unit", "{other}" if metric.unit != "{other}" else "1")
    yield "kind", lambda: setattr(group, attribute, _of_another_kind(metric))
    for index, label in enumerate(metric.labels):

        def with_label(changed: Label, index: int = index) -> Callable[[], None]:
            return set_field("labels", (*metric.labels[:index], changed, *metric.labels[index + 1 :]))

        yield f"label {label}: name", with_label(Label(f"{label}.other", label.values, open=label.open))
        yield f"label {label}: values", with_label(Label(label, label.values[:-1], open=not label.open and not label.values))
        yield f"label {label}: left out", set_field("labels", (*metric.labels[:index], *metric.labels[index + 1 :]))
    if len(metric.labels) > 1:
        yield "labels: order", set_field("labels", metric.labels[::-1])
    if isinstance(metric, Histogram):
        first, *others = metric.boundaries
        yield "buckets: first", set_field("boundaries", (first / 2, *others))
        yield "buckets: last", set_field("boundaries", metric.boundaries[:-1])


def _of_another_kind(metric: Metric[Any]) -> Metric[Any]:
    """The same metric as the kind that takes the most similar calls."""
    common = (metric.name, metric.unit, metric.labels)
    match metric:
        case Counter():
            return UpDownCounter(*common, metric.description)
        case UpDownCounter():
            return Counter(*common, metric.description)
        case Gauge():
            return UpDownCounter(*common, metric.description)
        case _:
            return Gauge(*common, metric.description)


def _run_one(change: Callable[[], None]) -> int:
    """Make one mutant in this process and run the tests; returns pytest's exit code."""
    change()
    metrics = {metric.name: metric for group in GROUPS for metric in group.metrics().values()}
    CATALOGUE.clear()
    CATALOGUE.update(metrics)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "telemetry.md"
        page.write_text(generate.page(generate.PAGE.read_text()))
        generate.PAGE = page  # type: ignore[misc]  # only in this process
        return int(pytest.main([*OPTIONS, *TESTS]))


def _fork(change: Callable[[], None]) -> int:
    """Run one mutant in a forked process, which spares the imports; returns its id."""
    if child := os.fork():
        return child
    code = 3
    try:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        code = _run_one(change)
    finally:
        os._exit(code)


def main() -> int:
    """Run all mutants, one on each processor at a time, and print the count."""
    begun = time.monotonic()
    waiting = {"": lambda: None, **mutants()}
    running: dict[int, str] = {}
    codes: dict[str, int] = {}
    while waiting or running:
        while waiting and len(running) < (os.cpu_count() or 1):
            name = next(iter(waiting))
            running[_fork(waiting.pop(name))] = name
        child, status = os.wait()
        codes[running.pop(child)] = os.waitstatus_to_exitcode(status)
    if codes.pop("") != 0:
        print("the tests fail without a mutant")
        return 1
    survived = [name for name, code in codes.items() if code == 0]
    broken = [f"{name}: pytest ended with {code}" for name, code in codes.items() if code not in (0, 1)]
    print(
        f"{len(codes)} mutants of {len(CATALOGUE)} metrics: {len(codes) - len(survived) - len(broken)} killed, "
        f"{len(survived)} survived, {len(broken)} broken; {time.monotonic() - begun:.0f} s"
    )
    print("\n".join([*survived, *broken]))
    return 1 if survived or broken else 0


if __name__ == "__main__":
    sys.exit(main())
