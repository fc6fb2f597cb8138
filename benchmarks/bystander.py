"""``python -m benchmarks.bystander``: a process that only sleeps, and reports when it was woken late.

It has no work of its own, so a late wake-up is caused by the machine. It ends when its standard input is closed. It prints, as
JSON, when each late sleep should have ended and when it did, in seconds of the monotonic clock.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

__all__ = ["apart_from", "bystander"]

_SLEEP: Final = 0.002
_LATE: Final = 0.0005

Late = tuple[float, float]


@contextmanager
def bystander() -> Iterator[list[Late]]:
    """Runs a bystander during the block. Its late wake-ups (from, to) are in the list when the block ends."""
    late: list[Late] = []
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.bystander"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield late
        output, _ = process.communicate(timeout=60)
        late += [(asked, woken) for asked, woken in json.loads(output)]
    finally:
        process.kill()
        process.wait()


def apart_from(late: Sequence[Late], asked: float, woken: float) -> float:
    """Seconds from ``asked`` to ``woken``, without the time for which the bystander was late, too."""
    return woken - asked - sum(max(0.0, min(woken, to) - max(asked, since)) for since, to in late)


def _main() -> None:
    done = threading.Event()

    def read() -> None:
        sys.stdin.read()
        done.set()

    threading.Thread(target=read, daemon=True).start()
    late: list[Late] = []
    while not done.is_set():
        asked = time.perf_counter() + _SLEEP
        time.sleep(_SLEEP)
        woken = time.perf_counter()
        if woken - asked > _LATE:
            late.append((asked, woken))
    sys.stdout.write(json.dumps(late))


if __name__ == "__main__":
    _main()
