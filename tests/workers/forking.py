"""A process that forks while its exporter runs: ``python -m tests.workers.forking PORT MODE``.

It prints its port and the id of its child. A line on its standard input ends its telemetry; the child goes on
until it is killed.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Literal, cast

from eventcore import Telemetry
from eventcore_prometheus import PrometheusExporter


def main(port: int, mode: str) -> None:
    telemetry = Telemetry(service_name="forking", exporters=[], config={})
    exporter = PrometheusExporter(port, workers=cast(Literal["auto", "off"], mode))
    telemetry.register_exporter(exporter)
    hits = telemetry.counter("hits").labels()
    telemetry.start_blocking()
    hits.add(5)
    address = exporter.address
    assert address is not None
    if (child := os.fork()) == 0:
        hits.add(7)
        time.sleep(60)  # a test that fails does not leave it for long
        os._exit(0)
    print(address[1], child, flush=True)
    sys.stdin.readline()
    telemetry.shutdown_blocking(5.0)
    print("ended", flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
