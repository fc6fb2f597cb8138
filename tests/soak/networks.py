"""Networks for processes: each process has one of its own (a Linux network namespace), whose cable can be pulled.

Needs root and iproute2. A pulled cable loses packets in both directions; nobody's kernel says that a connection has ended.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final


def can_make_networks() -> bool:
    """Whether this process may make networks."""
    if os.name != "posix" or os.geteuid() or shutil.which("ip") is None:
        return False
    name = f"ectry{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False, timeout=10).returncode == 0
    if made:
        _ip("netns", "del", name)
    return made


@final
class Network:
    """A bridge with an address of this machine, and the networks that are connected to it by a cable each.

    Attributes:
        address: of this machine, as the connected processes see it.
        block: all addresses of the network, in CIDR notation.
    """

    def __init__(self) -> None:
        self._name = f"ec{os.getpid()}"
        prefix = f"10.213.{os.getpid() % 250}"
        self.address = f"{prefix}.1"
        self.block = f"{prefix}.0/24"
        self._prefix = prefix
        self._spaces: list[str] = []

    def connect(self) -> Cable:
        """Make a network for a process, and connect it."""
        number = len(self._spaces) + 2
        space, here, there = f"{self._name}-{number}", f"{self._name}a{number}", f"{self._name}b{number}"
        _ip("netns", "add", space)
        self._spaces.append(space)
        _ip("link", "add", here, "type", "veth", "peer", "name", there)
        _ip("link", "set", there, "netns", space)
        _ip("link", "set", here, "master", self._name, "up")
        _ip("-n", space, "address", "add", f"{self._prefix}.{number}/24", "dev", there)
        _ip("-n", space, "link", "set", there, "up")
        _ip("-n", space, "link", "set", "lo", "up")
        return Cable(space, here)

    @classmethod
    @contextmanager
    def made(cls) -> Iterator[Network]:
        """Make the bridge; at the end, remove it with all networks."""
        network = cls()
        _ip("link", "add", network._name, "type", "bridge")
        try:
            _ip("address", "add", f"{network.address}/24", "dev", network._name)
            _ip("link", "set", network._name, "up")
            yield network
        finally:
            for space in network._spaces:
                _ip("netns", "del", space)
            _ip("link", "del", network._name)


@final
class Cable:
    """The cable between the network of a process and the bridge.

    Attributes:
        within: the words before a command that run it in the network.
    """

    def __init__(self, space: str, link: str) -> None:
        self.within = ("ip", "netns", "exec", space)
        self._link = link

    def pull(self) -> None:
        """Lose every packet from now on."""
        _ip("link", "set", self._link, "nomaster")

    def plug_in(self, network: Network) -> None:
        """Carry packets again."""
        _ip("link", "set", self._link, "master", network._name)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False, timeout=10)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
