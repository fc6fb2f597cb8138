"""The processes that run: started, killed, held, started again, and ended in order."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from time import monotonic
from typing import Final, Literal, TypeAlias, final

__all__ = ["Crew", "Member", "Role"]

Role: TypeAlias = Literal["writer", "reader", "scanner", "projector"]

_ROOT: Final = Path(__file__).parents[2]


@final
class Member:
    """One place in the crew, held by one process after another."""

    def __init__(self, role: Role, number: int, url: str, directory: Path) -> None:
        self.role = role
        self.name = f"{role}-{number}"
        self.url = url
        self._directory = directory
        self._number = number
        self._starts = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What its process writes: writers begin anew, so that a half line can only be a last one; readers go on."""
        return self._directory / (f"{self.name}.{self._starts}.log" if self.role == "writer" else f"{self.name}.log")

    @property
    def errors(self) -> Path:
        """What all its processes had to complain of."""
        return self._directory / f"{self.name}.stderr"

    def start(self, seed: int) -> None:
        """Start a process."""
        self._starts += 1
        command = [sys.executable, "-m", "tests.soak.worker", self.role, self.url, str(self.log), str(seed)]
        with self.errors.open("ab") as errors:
            self._process = subprocess.Popen(
                command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=errors, stderr=errors, start_new_session=True
            )

    def ended(self) -> int | None:
        """The code with which the process has ended by itself, ``None`` while it runs."""
        return None if self._process is None else self._process.poll()

    def signal(self, what: signal.Signals) -> None:
        """Tell its process group."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, what)

    def kill(self) -> None:
        """End it without a word."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(10)
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._process = None

    def tell_to_end(self) -> None:
        """Close its input."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()


@final
class Crew:
    """All members, and what went wrong with them."""

    def __init__(self, directory: Path, choice: random.Random) -> None:
        self.members: list[Member] = []
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self._directory = directory
        self._choice = choice

    def hire(self, role: Role, count: int, url: str) -> None:
        """Start so many processes of a role."""
        for number in range(1, count + 1):
            member = Member(role, number, url, self._directory)
            self.members.append(member)
            member.start(self._choice.randrange(1 << 30))

    def pick(self, *roles: Role) -> Member:
        """One of those with these roles."""
        return self._choice.choice(self.of(*roles))

    def of(self, *roles: Role) -> list[Member]:
        """All with these roles."""
        return [member for member in self.members if member.role in roles]

    def replace(self, member: Member) -> None:
        """Kill a process, and put another in its place at once."""
        self.look_after()
        member.kill()
        self.counts[f"kill -9 of a {member.role}"] += 1
        member.start(self._choice.randrange(1 << 30))

    async def hold(self, member: Member, seconds: float) -> None:
        """Let a process stand still for a while, as a machine that swaps does."""
        member.signal(signal.SIGSTOP)
        self.counts[f"{member.role} held"] += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            member.signal(signal.SIGCONT)

    def look_after(self) -> None:
        """Note who has ended without being asked to."""
        for member in self.members:
            if (code := member.ended()) is not None:
                self.faults.append(f"{member.name} has ended by itself with {code}; see {member.errors}")
                member.kill()

    async def end(self, *roles: Role, timeout: float = 20) -> None:
        """Ask those with these roles to end, and see that they do."""
        self.look_after()
        leaving = self.of(*roles)
        for member in leaving:
            member.tell_to_end()
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
                self.faults.append(f"{member.name} complains of something: see {member.errors}")

    def kill_all(self) -> None:
        """Leave nothing running."""
        for member in self.members:
            member.kill()
