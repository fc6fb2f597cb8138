"""The processes of a run: they are started, killed, paused, restarted and ended in order."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Final, Literal, TypeAlias, final

Role: TypeAlias = Literal["writer", "reader", "scanner", "projector"]

_ROOT: Final = Path(__file__).parents[2]


@final
class Member:
    """One numbered process of a role; after a kill, a new process continues under the same name.

    Args:
        within: words before the command, which run it somewhere else, such as in a network of its own.
    """

    def __init__(self, role: Role, number: int, url: str, directory: Path, within: Sequence[str] = ()) -> None:
        self.role = role
        self._within = within
        self.name = f"{role}-{number}"
        self.url = url
        self._directory = directory
        self._number = number
        self._starts = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """The log of the process.

        Each process of a writer begins a new file, so that only the last line can be cut off by a kill.
        The processes of a reader continue one file, because they resume at its last event.
        """
        return self._directory / (f"{self.name}.{self._starts}.log" if self.role == "writer" else f"{self.name}.log")

    @property
    def errors(self) -> Path:
        """Standard output and error of all its processes."""
        return self._directory / f"{self.name}.stderr"

    def start(self, seed: int) -> None:
        """Start a process."""
        self._starts += 1
        command = [*self._within, sys.executable, "-m", "tests.soak.worker", self.role, self.url, str(self.log), str(seed)]
        with self.errors.open("ab") as errors:
            self._process = subprocess.Popen(
                command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=errors, stderr=errors, start_new_session=True
            )

    @property
    def pid(self) -> int | None:
        """The process id, ``None`` between two processes."""
        return None if self._process is None else self._process.pid

    def ended(self) -> int | None:
        """The exit code of a process that has ended by itself, ``None`` while it runs."""
        return None if self._process is None else self._process.poll()

    def signal(self, signal_: signal.Signals) -> None:
        """Send a signal to the process group."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal_)

    def kill(self) -> None:
        """Kill the process with SIGKILL, and wait until it has ended."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(10)
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._process = None

    def close_input(self) -> None:
        """Close the input of the process, which then ends in order."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()


@final
class Crew:
    """All processes of a run, and the faults of those that ended without being killed."""

    def __init__(self, directory: Path, choice: random.Random) -> None:
        self.members: list[Member] = []
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self._directory = directory
        self._choice = choice

    def start(self, role: Role, count: int, url: str) -> None:
        """Start ``count`` processes of a role."""
        for number in range(1, count + 1):
            self.start_one(role, number, url)

    def start_one(self, role: Role, number: int, url: str, within: Sequence[str] = ()) -> Member:
        """Start a process of a role, after the words ``within``."""
        member = Member(role, number, url, self._directory, within)
        self.members.append(member)
        member.start(self._choice.randrange(1 << 30))
        return member

    def pick(self, *roles: Role) -> Member:
        """Return a random process of these roles."""
        return self._choice.choice(self.of(*roles))

    def of(self, *roles: Role) -> list[Member]:
        """Return all processes of these roles."""
        return [member for member in self.members if member.role in roles]

    def replace(self, member: Member) -> None:
        """Kill a process, and start another in its place at once."""
        self.note_unexpected_ends()
        member.kill()
        self.counts[f"kill -9 of a {member.role}"] += 1
        member.start(self._choice.randrange(1 << 30))

    async def pause(self, member: Member, seconds: float) -> None:
        """Stop a process for ``seconds``, as swapping or a virtual machine's migration does."""
        member.signal(signal.SIGSTOP)
        self.counts[f"{member.role} paused"] += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            member.signal(signal.SIGCONT)

    def note_unexpected_ends(self) -> None:
        """Note every process that has ended by itself as a fault."""
        for member in self.members:
            if (code := member.ended()) is not None:
                self.faults.append(f"{member.name} has ended by itself with {code}; see {member.errors}")
                member.kill()

    async def end(self, *roles: Role, timeout: float = 20) -> None:
        """Ask the processes of these roles to end; note those that do not end within ``timeout`` seconds, or with an error."""
        self.note_unexpected_ends()
        leaving = self.of(*roles)
        for member in leaving:
            member.close_input()
        deadline = monotonic() + timeout
        for member in leaving:
            while (code := member.ended()) is None and monotonic() < deadline:
                await asyncio.sleep(0.02)
            if code is None:
                self.faults.append(f"{member.name} does not end when it is asked to; see {member.errors}")
            elif code:
                self.faults.append(f"{member.name} has ended with {code}; see {member.errors}")
        for member in leaving:
            member.kill()
            self.members.remove(member)
            if member.errors.stat().st_size:
                self.faults.append(f"{member.name} has written to stderr: see {member.errors}")

    def kill_all(self) -> None:
        """Kill every process."""
        for member in self.members:
            member.kill()
