"""Free TCP ports for test servers."""

import random
import socket
from contextlib import ExitStack
from typing import Final

# Below the ports that Linux (from 32768) and macOS (from 49152) give to outgoing connections: while a test restarts its server
# on the same port, no outgoing connection of another process can take that port.
_CANDIDATES: Final = range(20_000, 32_000)
# Not the shared generator: hypothesis seeds it, with the same seed in every test process.
_SYSTEM_RANDOM: Final = random.SystemRandom()


def free_ports(count: int) -> list[int]:
    """Return ``count`` different ports of 127.0.0.1 on which no process listens.

    The ports are not reserved. Test processes that run side by side choose at random, so that two of them rarely meet.
    """
    ports: list[int] = []
    with ExitStack() as held:
        for port in _SYSTEM_RANDOM.sample(_CANDIDATES, len(_CANDIDATES)):
            if len(ports) == count:
                break
            probe = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            # A server can bind a port whose last connections are in TIME_WAIT, so the probe accepts such a port too.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
    if len(ports) < count:
        raise OSError(f"fewer than {count} free ports in {_CANDIDATES}")
    return ports
