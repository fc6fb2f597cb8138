"""What an exporter's process runs: it makes the exporter, and calls its hooks when the store's process says so.

The main thread reads messages, another thread calls the hooks, one after the other. The process ends when it is told to shut
down, when the channel is closed, and when the store's process has ended.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import logging
import os
import pickle
import queue
import signal
import socket
import sys
import threading
import time
from concurrent.futures import Future
from importlib.metadata import EntryPoint
from math import inf
from types import FrameType
from typing import Any, Final, final

from eventcore.errors import ConfigurationError
from eventcore.exporting.configuration.discovery import GROUP, FoundPlugin
from eventcore.exporting.configuration.signature import bind_settings
from eventcore.exporting.context import ExporterContext, HiddenKind
from eventcore.exporting.delivery.cycles.calls import checked_answer
from eventcore.exporting.delivery.hook_runner import HookRunner
from eventcore.exporting.forking import ForkGuard
from eventcore.exporting.logs import bounded_logger
from eventcore.exporting.process.channel import Channel, ChannelClosed
from eventcore.exporting.process.outcomes import Outcome, outcome_of, outcome_of_error
from eventcore.exporting.process.packed_spans import SpanUnpacker
from eventcore.exporting.process.packing import unpack_metrics
from eventcore.exporting.process.running import Hello
from eventcore.exporting.registration import check_exporter
from eventcore.ground import text_of, traceback_of

# Seconds between two looks at whether the store's process still exists. A process that it has forked may hold the channel open.
_LOOK: Final = 1.0
# So many such looks at most before the first message.
_FIRST_LOOKS: Final = 60
# Seconds after which the process ends by itself when its main thread does not get the GIL: a hook holds it, and the main thread
# would not see that the store's process has ended.
_MOST_SILENT: Final = 30.0
# Seconds for the `shutdown` hook when the store's process has ended.
_LAST_SECONDS: Final = 1.0
# Objects that are made before the garbage collector looks at the young ones; Python's own default is 700 to 2,000.
_YOUNG: Final = 20_000
_IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    """Run one exporter until it is to end. The arguments of the process: the number of the file that is the channel, and a name
    for people.
    """
    for number in _IGNORED:
        # It ends with the store's process, which gets these signals, too, and still has spans to deliver.
        signal.signal(number, _ignore)
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)
    channel = Channel(connection, _LOOK)
    try:
        # The store's process sends the first message at once.
        for _ in range(_FIRST_LOOKS):
            if (message := channel.receive()) is not None:
                _run(channel, pickle.loads(message))  # noqa: S301  # from the process that has started this one
                break
    except ChannelClosed:
        pass
    _end()


def _run(channel: Channel, hello: Hello) -> None:
    os.environ.clear()
    os.environ.update(hello.environment)
    time.tzset()
    sys.path[:] = hello.path
    child = Child(channel, hello)
    threading.Thread(target=child.call_hooks, name="eventcore-hooks", daemon=True).start()
    child.read_messages()


def _ignore(number: int, frame: FrameType | None) -> None:
    """Not ``SIG_IGN``, which programs that the exporter starts would inherit."""


def _end_unless_called_again(seconds: float) -> None:
    """End the process with exit code 1 after ``seconds``, by a thread that needs no GIL; it writes where each thread is.

    Not by ``PR_SET_PDEATHSIG``: that kills the process at once, without a last ``shutdown``, and when the thread ends that has
    started the process, too.
    """
    with open(os.devnull, "w") if sys.stderr is None else contextlib.nullcontext(sys.stderr) as file:
        faulthandler.dump_traceback_later(seconds, file=file, exit=True)


def _end() -> None:
    """End the process at once: what the exporter has left behind, such as a thread, is not waited for."""
    for stream in (sys.stdout, sys.stderr):
        # A stream may be closed, or its reader gone. The process ends in any case.
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(0)


@final
class Child:
    """The exporter, and what it asks of its context, which the store's process does.

    Args:
        channel: to the store's process.
        hello: what to make.
    """

    def __init__(self, channel: Channel, hello: Hello) -> None:
        self._channel = channel
        self._hello = hello
        self._logger = bounded_logger(f"eventcore.exporters.{hello.plan.name}")
        self._logger.setLevel(hello.log_level)
        logging.getLogger().addHandler(_Forwarding(channel))
        self._stopping = threading.Event()
        self._unpacker = SpanUnpacker(hello.plan.limits)
        self._calls: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
        # Made by the first call, which is `start`. The lock is held while a future is made, and at no other time.
        self._runner: HookRunner | None = None
        self._failed_begin: Outcome = None
        self._exports: dict[int, Future[None]] = {}
        self._ended = threading.Event()

    # The main thread

    def read_messages(self) -> None:
        """Read until the exporter has been shut down, or the store's process has ended."""
        looked_at = -inf
        try:
            while not self._ended.is_set() and os.getppid() == self._hello.parent:
                if (now := time.monotonic()) >= looked_at + _LOOK:
                    looked_at = now
                    _end_unless_called_again(_MOST_SILENT)
                if (message := self._channel.receive()) is not None:
                    self._take(message)
        except ChannelClosed:
            pass
        if not self._ended.is_set():
            self._shut_down(_LAST_SECONDS)
            self._calls.put(["call", 0, "shutdown", _LAST_SECONDS])
            self._ended.wait(_LAST_SECONDS)

    def _take(self, message: list[Any]) -> None:
        kind, *rest = message
        if kind == "call":
            if rest[1] == "shutdown":
                self._shut_down(rest[2])
            self._calls.put(message)
        elif kind == "stopping":
            self._stopping.set()
        elif kind == "exported":
            number, problem, is_timeout = rest
            if (future := self._exports.pop(number, None)) is not None:
                if problem:
                    future.set_exception(TimeoutError(problem) if is_timeout else RuntimeError(problem))
                else:
                    future.set_result(None)

    def _shut_down(self, timeout: float) -> None:
        """Shutdown begins: a hook that runs gets ``shutdown`` called beside it."""
        self._stopping.set()
        if (runner := self._runner) is not None and "shutdown" in runner.handle.implemented:
            running = runner.running
            if running is not None and running.hook != "shutdown":
                runner.shut_down_beside(timeout)

    # The thread of the hooks

    def call_hooks(self) -> None:
        """Call the hooks that the store's process asks for, until ``shutdown``."""
        hook = ""
        while hook != "shutdown":
            _, number, hook, timeout, *arguments = self._calls.get()
            outcome = self._outcome(hook, timeout, arguments)
            if hook == "begin":
                # Not answered: what it has raised is the answer to the other hooks of its cycle, which are not called.
                self._failed_begin = outcome
                continue
            if hook == "shutdown" and self._runner is not None:
                self._runner.stop_loop(min(timeout, _LAST_SECONDS))
            with contextlib.suppress(ChannelClosed):
                self._channel.send(["answer", number, outcome, time.process_time()])
        self._ended.set()
        _end()

    def _outcome(self, hook: str, timeout: float, arguments: list[Any]) -> Outcome:
        try:
            if self._runner is None:
                if hook == "shutdown":
                    return None
                self._runner = self._make()
            if self._failed_begin is not None and hook not in ("start", "begin", "shutdown"):
                return self._failed_begin
            answer = self._runner.call(hook, timeout, **self._named(hook, arguments))
            return outcome_of(checked_answer(hook, answer))
        except BaseException as error:  # noqa: BLE001  # whatever a plugin raises is the outcome
            return outcome_of_error(error, converts=hook not in ("start", "begin"))

    def _make(self) -> HookRunner:
        """Import the plugin and make the exporter, as the store's process did before."""
        plan = self._hello.plan
        name, value, distribution, version = plan.plugin
        plugin = FoundPlugin(EntryPoint(name, value, GROUP), distribution, version)
        factory = plugin.load()
        settings = dict(plan.settings)
        arguments, faults = bind_settings(factory, settings, name=plan.name, where=plan.file, origin=plugin.origin)
        if faults:
            raise ConfigurationError(faults)
        handle = check_exporter(factory(**arguments), plugin.origin)
        # What was imported stays until the process ends: full garbage collections need not visit it. Those of young objects
        # come once for so many as a chunk of spans has, and not several times within it.
        gc.freeze()
        gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])
        return HookRunner(handle, plan.name, ForkGuard(self._logger))

    def _named(self, hook: str, arguments: list[Any]) -> dict[str, Any]:
        if hook == "start":
            return {"context": self._context()}
        if hook == "begin":
            signal_name, attempt = arguments
            return {"signal": signal_name, "attempt": attempt}
        if hook == "flush":
            return {"signal": arguments[0]}
        if hook == "export_spans":
            return {"spans": [span for part in arguments[0] for span in self._unpacker.unpack(part)]}
        if hook.startswith("export_"):
            kind = hook.removeprefix("export_")
            return {kind: unpack_metrics(kind, arguments[0])}
        return {}

    def _context(self) -> ExporterContext:
        hello = self._hello
        return ExporterContext(
            name=hello.plan.name,
            resource=hello.resource,
            settings=hello.shown_settings,
            logger=self._logger,
            stopping=self._stopping,
            export_now=self._export_now,
            report_hidden=self._report_hidden,
            trial=hello.trial,
        )

    # Any thread

    def _export_now(self, timeout: float) -> Future[None]:
        if self._runner is not None and self._runner.in_hook():
            raise RuntimeError(
                "export_now was called inside a hook: the cycle that it asks for cannot begin before the hook returns"
            )
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()
        self._exports[id(future)] = future
        self._say("export_now", id(future), min(timeout, 86_400.0) if timeout < inf else 86_400.0)
        return future

    def _report_hidden(self, instrument: str, reason: str, kind: HiddenKind) -> None:
        self._say("hidden", text_of(instrument), text_of(reason), text_of(kind))

    def _say(self, *message: object) -> None:
        # When the channel is closed, the process ends.
        with contextlib.suppress(ChannelClosed):
            self._channel.send(message)


class _Forwarding(logging.Handler):
    """Lets the store's process log what is logged here, by loggers of the same names."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        # A record that cannot be formatted must not fail the code that logs.
        with contextlib.suppress(Exception):
            text = text_of(record.getMessage(), 4096)
            if record.exc_text:
                text = f"{text}\n{record.exc_text}"
            elif record.exc_info and record.exc_info[1] is not None:
                text = f"{text}\n{traceback_of(record.exc_info[1])}"
            self._channel.send(["log", record.name, record.levelno, text])
