"""Servers with four workers, under load for a minute each, while a worker is killed every five seconds.

``python -m tests.workers [--seconds 60] [--kill-every 5] [--server gunicorn]``. At the end, the raises of all
series, added up from Prometheus's raw samples, differ from what the clients were told by at most the commands of one
second for each kill. Prints a line for each server; ends with code 1 if anything deviates.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.real_parts.finding import find_part
from tests.workers.proof import SERVERS, prove


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.workers", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--kill-every", type=float, default=5.0)
    parser.add_argument("--server", choices=SERVERS, action="append")
    arguments = parser.parse_args()
    # SIGTERM ends the run as Ctrl-C does, so that it ends the servers that it has started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    deviates = False
    for server in arguments.server or SERVERS:
        directory = Path(tempfile.mkdtemp(prefix="eventcore-workers-"))
        account = prove(server, arguments.seconds, arguments.kill_every, find_part("prometheus"), directory)
        print(f"{server}: {account}: {'adds up' if account.adds_up else f'DEVIATES, logs are in {directory}'}", flush=True)
        deviates |= not account.adds_up
        if account.adds_up:
            shutil.rmtree(directory)
    return int(deviates)


if __name__ == "__main__":
    sys.exit(main())
