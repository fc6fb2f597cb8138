"""A server process that a test starts: waited for until it is ready, and always stopped."""

import pwd
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.real_parts.waiting import wait_until


class ServerFailed(Exception):
    """A server ended before it was ready, or was not ready in time."""


class ServerProcess:
    """One process whose output goes to a file.

    Args:
        command: the program and its arguments.
        log: the file for its output; a second start appends.
        env: its complete environment.
        cwd: its working directory, which it may write to.
        user: the user who runs it, for servers that refuse to run as root; by default the user who runs the tests.
    """

    def __init__(
        self, command: Sequence[str], log: Path, env: Mapping[str, str], cwd: Path, user: pwd.struct_passwd | None = None
    ) -> None:
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                user=user.pw_uid if user is not None else None,
                group=user.pw_gid if user is not None else None,
                extra_groups=[] if user is not None else None,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_ready(self, ready: Callable[[], bool], timeout: float) -> None:
        """Poll ``ready``; stop the server if it does not become ready.

        Raises:
            ServerFailed: the server ended, or was not ready within ``timeout`` seconds; the message has the end of its log.
        """

        def ended_or_ready() -> bool:
            return self._process.poll() is not None or ready()

        try:
            wait_until(ended_or_ready, timeout, "the server is ready")
        except AssertionError as error:
            self.stop()
            raise ServerFailed(f"{self._process.args!r}: {error}\n{self._tail()}") from error
        except BaseException:
            self.stop()
            raise
        if (code := self._process.poll()) is not None:
            raise ServerFailed(f"{self._process.args!r} ended with {code}\n{self._tail()}")

    def stop(self, signal_: signal.Signals = signal.SIGTERM, patience: float = 5) -> None:
        """Send a signal, and SIGKILL if the process still runs after ``patience`` seconds."""
        self._process.send_signal(signal_)
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]
