"""Faults at the start, at the end, in threads and in forked children."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from eventcore.exporting import ExporterContext, Secret, Signal, hookimpl
from tests.testing.exporters.line_exporter import LineExporter
from tests.testing.exporters.planted.table import OPEN, planted


@planted("test_making_the_exporter_opens_nothing")
class ConnectsWhenItIsMade(LineExporter):
    def __init__(self, port: int, token: Secret) -> None:
        super().__init__(port, token)
        OPEN.append(socket.create_connection(("127.0.0.1", port)))


@planted("test_everything_that_was_opened_is_closed_at_shutdown")
class LeavesAThreadBehind(LineExporter):
    @hookimpl
    def start(self, context: ExporterContext) -> None:
        super().start(context)
        threading.Thread(target=threading.Event().wait, args=(30,), daemon=True).start()


@planted("test_everything_that_was_opened_is_closed_at_shutdown")
class LeavesConnectionsOpen(LineExporter):
    def disconnect(self) -> None:
        OPEN.extend([self.connection] if self.connection is not None else [])
        self.connection = None


@planted("test_shutdown_may_come_before_start_and_twice")
class ShutsDownOnce(LineExporter):
    @hookimpl
    def shutdown(self, timeout: float) -> None:
        del self.context


@planted("test_it_starts_again_after_a_start_that_failed_halfway")
class StartsOnce(LineExporter):
    started = False

    @hookimpl
    def start(self, context: ExporterContext) -> None:
        if self.started:
            raise RuntimeError("started already")
        self.started = True
        super().start(context)


@planted("test_a_shutdown_delivers_what_was_recorded")
class SendsWithTheNextCycle(LineExporter):
    def __init__(self, port: int, token: Secret) -> None:
        super().__init__(port, token)
        self.held: dict[str, Any] = {}

    def send(self, content: Mapping[str, Any], timeout: float) -> Any:
        for signal, values in content.items():
            held, self.held[signal] = self.held.get(signal), values
            if held:
                super().send({signal: held}, timeout)


@planted("test_a_shutdown_at_any_time_is_in_time")
class HangsInShutdown(LineExporter):
    @hookimpl
    def shutdown(self, timeout: float) -> None:
        super().shutdown(timeout)
        threading.Event().wait(3)


@planted("test_flushes_and_spans_of_several_threads_lose_nothing")
class LeavesOutFlushesThatComeSoon(LineExporter):
    last = 0.0

    @hookimpl
    def flush(self, signal: Signal, timeout: float) -> Any:
        if signal == "spans" and time.monotonic() < self.last + 0.02:
            return
        super().flush(signal, timeout)
        self.last = time.monotonic()


@planted("test_a_successor_goes_on_without_loss")
class SaysThatASuccessorHasNothingToDo(LineExporter):
    gone: ClassVar[bool] = False

    @hookimpl
    def start(self, context: ExporterContext) -> None:
        super().start(context)
        self.is_idle = type(self).gone

    def send(self, content: Mapping[str, Any], timeout: float) -> Any:
        if not self.is_idle:
            super().send(content, timeout)

    @hookimpl
    def shutdown(self, timeout: float) -> None:
        super().shutdown(timeout)
        type(self).gone = True


@planted("test_a_forked_child_and_its_parent_each_deliver_their_own")
class WorksInItsProcessOnly(LineExporter):
    def __init__(self, port: int, token: Secret) -> None:
        super().__init__(port, token)
        self.process = os.getpid()

    def send(self, content: Mapping[str, Any], timeout: float) -> Any:
        if os.getpid() != self.process:
            raise RuntimeError("made in another process")
        super().send(content, timeout)


@planted("test_a_forked_child_and_its_parent_each_deliver_their_own")
class EndsAtAFork(LineExporter):
    ended = False

    @hookimpl
    def start(self, context: ExporterContext) -> None:
        self.context = context
        context.on_fork(before=self.end)

    def end(self) -> None:
        self.disconnect()
        self.ended = True

    def send(self, content: Mapping[str, Any], timeout: float) -> Any:
        if self.ended:
            raise RuntimeError("the connection was closed for a fork")
        super().send(content, timeout)


@planted("test_a_forked_child_lets_go_of_what_its_parent_listens_on")
class KeepsItsPortInTheChild(LineExporter):
    listener: socket.socket | None = None

    @hookimpl
    def start(self, context: ExporterContext) -> None:
        super().start(context)
        self.listener = socket.create_server(("127.0.0.1", 0))

    @hookimpl
    def shutdown(self, timeout: float) -> None:
        super().shutdown(timeout)
        if self.listener is not None:
            self.listener.close()


@planted("test_a_parent_and_its_forked_workers_deliver_side_by_side")
class LetsTheNewestProcessDeliver(LineExporter):
    def __init__(self, port: int, token: Secret) -> None:
        super().__init__(port, token)
        self.newest = Path(tempfile.gettempdir()) / f"eventcore-newest-{os.getpid()}-{port}"

    @hookimpl
    def start(self, context: ExporterContext) -> None:
        super().start(context)
        self.newest.write_text(f"{os.getpid()}")

    def send(self, content: Mapping[str, Any], timeout: float) -> Any:
        if self.newest.read_text() == f"{os.getpid()}":
            super().send(content, timeout)

    @hookimpl
    def shutdown(self, timeout: float) -> None:
        super().shutdown(timeout)
        self.newest.unlink(missing_ok=True)
