"""A running process of an exporter, as the store's process sees it."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from types import MappingProxyType
from typing import Any, Final, cast, final

import msgspec

from eventcore.exporting.context import ExporterContext, Secret
from eventcore.exporting.process.channel import Channel, ChannelClosed
from eventcore.ground import describe_error, in_background, log_safely, type_name
from eventcore.recording.attributes import SpanLimits
from eventcore.recording.values import Resource

# Variables that the interpreter itself reads when it starts. Every other variable goes over the channel: the
# environment of a process can be read by others of the same user, and may hold secrets.
_EARLY: Final = ("LANG", "LC_", "LD_", "PYTHON", "MALLOC_", "GLIBC_TUNABLES", "SYSTEMROOT")
_PROGRAM: Final = "from eventcore.exporting.process.child import main; main()"
# Seconds between two looks at whether the pipeline is stopping, while a hook runs in the other process.
_LOOK: Final = 0.1
# Seconds that a process may take to end by itself after its channel was closed.
_GRACE: Final = 0.2
# Messages that are read at once while no hook runs.
_MOST_NOTES: Final = 1000


@final
class ChildPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What an exporter's process needs to make the exporter.

    Attributes:
        name: the exporter's name.
        plugin: of its plugin: the name of the entry point, its target, the distribution and its version.
        settings: the plugin's own settings, not yet converted.
        file: the file to name in faults.
        limits: the most that one span keeps.
        load_timeout: seconds that importing the plugin may take, on top of the time for ``start``.
    """

    name: str
    plugin: tuple[str, str, str, str]
    settings: Mapping[Any, Any]
    file: str
    limits: SpanLimits
    load_timeout: float

    def problem(self) -> str:
        """Why another process cannot have these settings; empty when it can."""
        try:
            to_bytes(self)
        except Exception as error:  # noqa: BLE001  # an object that code has put into the configuration
            return describe_error(error)
        return ""


@final
class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """The first message to an exporter's process.

    Attributes:
        plan: how to make the exporter.
        parent: the process id of the store's process.
        environment: all variables of the store's process.
        path: its ``sys.path``.
        log_level: the level of the exporter's logger.
        resource, shown_settings, trial: for the exporter's context.
    """

    plan: ChildPlan
    parent: int
    environment: dict[str, str]
    path: list[str]
    log_level: int
    resource: Resource
    shown_settings: Mapping[str, Any]
    trial: bool


class _Pickler(pickle.Pickler):
    """Also takes secrets, which refuse to be pickled: this text goes to the exporter's own process alone."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is Secret:
            return Secret, (obj.reveal(),)
        if type(obj) is MappingProxyType:
            return dict, (dict(cast("Mapping[Any, Any]", obj)),)
        if getattr(obj, "__module__", "") == "__main__":
            # Not the value, which may be a secret.
            raise TypeError(f"{type_name(obj if isinstance(obj, type) else type(obj))} is defined in the program's main module")
        return NotImplemented


def to_bytes(value: object) -> bytes:
    """A plan or a ``Hello`` for another process."""
    file = io.BytesIO()
    _Pickler(file).dump(value)
    return file.getvalue()


@final
class RunningProcess:
    """Starts an exporter's process and talks to it. ``talking`` must be held to ask it and to listen to it.

    Args:
        plan: how the process makes the exporter.
        context: what the exporter gets at its start; what the exporter asks of its context is asked of this one.

    Attributes:
        pid: of the process.
        talking: held by the thread that talks to the process.
        launched: when it was started (``time.monotonic``).
        cpu_seconds: processor time that it has used, as of its last answer.
    """

    def __init__(self, plan: ChildPlan, context: ExporterContext) -> None:
        self._context = context
        self.talking = threading.Lock()
        self.launched = time.monotonic()
        self.cpu_seconds = 0.0
        self._asked = 0
        self._has_stopped = False
        hello = to_bytes(_hello(plan, context))
        here, there = socket.socketpair()
        try:
            self._process = subprocess.Popen(  # noqa: S603  # the interpreter that runs this
                [sys.executable, "-P", "-c", _PROGRAM, str(there.fileno()), f"eventcore-exporter-{plan.name}"],
                stdin=subprocess.DEVNULL,
                pass_fds=(there.fileno(),),
                env=_early_environment(),
                # Signals for the whole group of the store's process, such as Ctrl-C, are not for it: it has spans to deliver.
                start_new_session=True,
            )
        except BaseException:
            here.close()
            raise
        finally:
            there.close()
        self.pid = self._process.pid
        # What is to be sent together with the next call.
        self._before_call: list[list[Any]] = []
        self._channel = Channel(here, _LOOK)
        # A process that has ended already is noticed when it is asked.
        with contextlib.suppress(ChannelClosed):
            self._channel.send(hello)

    def ask(self, hook: str, timeout: float, *arguments: object, limit: float | None = None) -> Any:
        """Let the process call a hook, and wait for the outcome.

        Args:
            hook: its name.
            timeout: seconds that the hook may take.
            arguments: further arguments, packed.
            limit: seconds after which not to wait any longer.

        Raises:
            ChannelClosed: the process has ended.
            TimeoutError: no answer within ``limit``.
        """
        deadline = None if limit is None else time.monotonic() + limit
        self._asked += 1
        number = self._asked
        before, self._before_call = self._before_call, []
        self._channel.send(*before, ["call", number, hook, timeout, *arguments])
        while True:
            self._forward_stopping()
            message = self._channel.receive()
            if message is not None and message[0] == "answer":
                # The answer of a call that another thread no longer waits for has another number.
                if message[1] == number:
                    self.cpu_seconds = message[3]
                    return message[2]
            elif message is not None:
                self._note(message)
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError

    def begin(self, timeout: float, *arguments: object) -> None:
        """Let the process call ``begin`` before the next hook. What it raises is the outcome of that hook."""
        self._before_call = [["call", 0, "begin", timeout, *arguments]]

    def listen(self) -> None:
        """Read what the process says while no hook runs.

        Raises:
            ChannelClosed: it has ended.
        """
        self._forward_stopping()
        for _ in range(_MOST_NOTES):
            if (message := self._channel.receive(wait=False)) is None:
                return
            if message[0] != "answer":
                self._note(message)

    def shut_down_beside(self, timeout: float) -> None:
        """Let the process call ``shutdown`` while another thread waits for the outcome of another hook."""
        with contextlib.suppress(ChannelClosed):
            self._channel.send(["call", 0, "shutdown", timeout])

    def wait(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds until the process has ended, and then end it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(timeout, 0.0))
            return
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE)

    def kill_at(self, deadline: float) -> None:
        """Kill the process at ``deadline`` (``time.monotonic``) if it runs then, also while every other thread waits for it.

        A process that is stopped, and reads nothing, blocks a thread that sends, and others that want to.
        """
        in_background(lambda: self.wait(deadline - time.monotonic()), "eventcore-exporter-deadline")

    def close(self) -> str:
        """End the process if it runs, and close the channel. Returns how the process has ended."""
        self._channel.close()
        self.wait(_GRACE)
        code = self._process.returncode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    def leave(self) -> None:
        """In a forked child: close the inherited side of the channel, which keeps the parent's exporter process alive."""
        self._channel.close()

    def _forward_stopping(self) -> None:
        if not self._has_stopped and self._context.stopping.is_set():
            self._has_stopped = True
            self._channel.send(["stopping"])

    def _note(self, message: list[Any]) -> None:
        """Do what the exporter asks of its context, or log what it has logged."""
        kind, *rest = message
        if kind == "log":
            name, level, text = rest
            logger = self._context.logger
            # By the exporter's logger also what others have logged: the number of its records is limited.
            source = "" if name == logger.name else f"{name}: "
            log_safely(logger, level, f"{source}{text}")
        elif kind == "hidden":
            self._context.report_hidden(*rest)
        elif kind == "export_now":
            # In another thread: this one may be inside a hook.
            in_background(lambda: self._export_now(*rest), "eventcore-export-now")

    def _export_now(self, number: int, timeout: float) -> None:
        def answer(future: Future[None]) -> None:
            error = future.exception()
            with contextlib.suppress(ChannelClosed):
                self._channel.send(["exported", number, "" if error is None else str(error), type(error) is TimeoutError])

        try:
            self._context.export_now(timeout).add_done_callback(answer)
        except RuntimeError as error:
            with contextlib.suppress(ChannelClosed):
                self._channel.send(["exported", number, str(error), False])


def _hello(plan: ChildPlan, context: ExporterContext) -> Hello:
    return Hello(
        plan=plan,
        parent=os.getpid(),
        environment=dict(os.environ),
        path=_import_path(),
        log_level=context.logger.getEffectiveLevel(),
        resource=context.resource,
        shown_settings=context.settings,
        trial=context.trial,
    )


def _import_path() -> list[str]:
    """The entries of ``sys.path`` that Python does not ignore, as this process finds them."""
    try:
        here = os.getcwd()
    except FileNotFoundError:
        here = ""
    return [found for entry in sys.path if isinstance(entry, str) and (found := entry or here)]


def _early_environment() -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if name.startswith(_EARLY)}
    # So that the process finds this very package, whatever the store's program has done to its path.
    return own | {"PYTHONPATH": os.pathsep.join(_import_path())}
