"""The receivers of telemetry: a real collector, and a process that scrapes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.real_parts.finding import find_part
from tests.real_parts.ports import free_ports
from tests.real_parts.server import ServerProcess

__all__ = ["collector", "scraped"]


@contextmanager
def collector() -> Iterator[str]:
    """Run a rotel collector that drops what it receives; yields its endpoint for OTLP over gRPC.

    Raises:
        PartMissing: rotel is not installed; the message says how to install it.
    """
    with TemporaryDirectory(prefix="eventcore-benchmark-") as directory:
        grpc, http = free_ports(2)
        command = [str(find_part("rotel")), "start", "--exporter", "blackhole", "--pid-file", f"{directory}/rotel.pid"]
        command += ["--otlp-grpc-endpoint", f"127.0.0.1:{grpc}", "--otlp-http-endpoint", f"127.0.0.1:{http}"]
        # The program is linked against libpython. A Python that is not installed system-wide has it in a folder of its own.
        libraries = [sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH")]
        env = {"LD_LIBRARY_PATH": os.pathsep.join(folder for folder in libraries if folder)}
        server = ServerProcess(command, Path(directory) / "rotel.log", env, Path(directory))
        try:
            server.wait_until_ready(lambda: _accepts(grpc), 10)
            yield f"http://127.0.0.1:{grpc}"
        finally:
            server.stop()


@contextmanager
def scraped(url: str, period: float) -> Iterator[dict[str, Any]]:
    """Another process scrapes ``url`` every ``period`` seconds (0: without a pause). Its counts are set when the block ends."""
    account: dict[str, Any] = {}
    scraper = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.scraper", url, str(period)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield account
        output, _ = scraper.communicate("stop\n", timeout=60)
        account.update(json.loads(output))
    finally:
        scraper.kill()
        scraper.wait()


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
