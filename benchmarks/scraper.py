"""A process that scrapes until its input is closed, then prints JSON: ``python -m benchmarks.scraper URL PERIOD``."""

from __future__ import annotations

import json
import sys
import threading
import urllib.request
from time import perf_counter

__all__ = ["main"]


def main() -> None:
    """Scrape as Prometheus does, with compression, and count the scrapes."""
    url, period = sys.argv[1], float(sys.argv[2])
    stop = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.readline()
        stop.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    durations: list[float] = []
    failures = size = 0
    while not stop.is_set():
        begun = perf_counter()
        try:
            request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
            with urllib.request.urlopen(request, timeout=60) as response:
                size = len(response.read())
            durations.append(perf_counter() - begun)
        except OSError:
            failures += 1
        stop.wait(max(period - (perf_counter() - begun), 0))
    worst = max(durations, default=0.0)
    sys.stdout.write(json.dumps({"scrapes": len(durations), "failures": failures, "worst": worst, "compressed_bytes": size}))


if __name__ == "__main__":
    main()
