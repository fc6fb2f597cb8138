"""The handle of an exporter that runs in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, ClassVar, Final, final

from eventcore.exporting.context import ExporterContext, Rejected
from eventcore.exporting.delivery.handle import ExporterHandle
from eventcore.exporting.delivery.hook_runner import HookFailed, ProcessEnded
from eventcore.exporting.process.channel import ChannelClosed
from eventcore.exporting.process.outcomes import settle
from eventcore.exporting.process.packing import pack_metrics, pack_spans
from eventcore.exporting.process.running import ChildPlan, RunningProcess
from eventcore.ground import in_background, leave_to_parent
from eventcore.recording.spans import Span

# Hooks of the instance in the store's process, which is never started: another tracing system is used there.
_HERE: Final = ("ambient_context", "trace_context")
_METRICS: Final = ("counters", "gauges", "histograms")
# Seconds of an event loop's time that packing spans may take at once, and the spans of the first slice.
_SLICE: Final = 0.0002
_FIRST_SLICE: Final = 50
# A process that has lived for so many seconds has not died of its start: the next backoff begins anew.
_LONG_LIFE: Final = 60.0


@final
class ProcessHandle(ExporterHandle):
    """Calls the hooks of an exporter in another process, which ``start`` starts and ``shutdown`` ends.

    For the pipeline nothing else is different: it keeps the spans until the other process has acknowledged them, retries, and
    counts. When the other process dies, the hook that was called raises ``ProcessEnded``.

    Args:
        here: the handle of the same exporter, made in this process and never started.
        plan: how the other process makes the exporter.
    """

    __slots__ = ("_context", "_cpu_before", "_plan", "_process", "_slice", "deaths", "ended")

    packs_spans: ClassVar[bool] = True

    def __init__(self, here: ExporterHandle, plan: ChildPlan) -> None:
        super().__init__(here.exporter, here.origin, here.interval)
        self.async_hooks = frozenset[str]()
        # The pipeline calls `shutdown` only if it is implemented, and the process needs it.
        self.implemented |= {"start", "shutdown"}
        self._plan = plan
        self._slice = _FIRST_SLICE
        self._forget()

    def _forget(self) -> None:
        self._process: RunningProcess | None = None
        self._context: ExporterContext | None = None
        self._cpu_before = 0.0
        self.ended = ""
        self.deaths = 0

    def restore(self) -> None:
        """In a forked child: leave the process to the parent; ``start`` starts another one."""
        if (process := self._process) is not None:
            leave_to_parent(process)
            process.leave()
        self._forget()
        super().restore()

    def call(self, hook: str, **arguments: Any) -> Any:
        """Call one hook in the other process, and wait for its outcome. Called by the worker thread.

        Raises:
            ProcessEnded: the process has ended; whether the hook had an effect is unknown.
            Exception: what the hook raised.
        """
        if hook in _HERE:
            return super().call(hook, **arguments)
        timeout = arguments.pop("timeout")
        if hook == "start":
            return self._start(arguments["context"], timeout)
        if hook == "shutdown":
            return self._shut_down(timeout)
        packed = [self._packed(name, value) for name, value in arguments.items()]
        if (process := self._process) is None:
            raise ProcessEnded(self.ended or "the exporter's process has ended")
        with process.talking:
            try:
                if hook == "begin":
                    # Spans that are given to a process that has ended count as unknown: so look first.
                    process.listen()
                    return process.begin(timeout, *packed)
                outcome = process.ask(hook, timeout, *packed)
            except ChannelClosed:
                raise self._died(process) from None
        return settle(outcome)

    def cpu_elsewhere(self) -> float:
        """Processor seconds that the exporter's processes have used."""
        process = self._process
        return self._cpu_before + (process.cpu_seconds if process is not None else 0.0)

    def look_after(self) -> bool:
        """Read what the process says while no hook runs. Returns whether it is found to have ended. Any thread."""
        process = self._process
        if process is None or not process.talking.acquire(blocking=False):
            return False
        try:
            process.listen()
        except ChannelClosed:
            self._died(process)
        finally:
            process.talking.release()
        return bool(self.ended)

    def _packed(self, name: str, value: Any) -> Any:
        """An argument of a hook, as the other process gets it."""
        if name in _METRICS:
            return pack_metrics(value)
        return self._packed_spans(value) if name == "spans" else value

    def _packed_spans(self, spans: Sequence[Span]) -> list[bytes]:
        """Pack spans on the application's event loop, so many at once as take a slice of its time."""
        parts: list[bytes] = []
        begin = 0

        def pack() -> bool:
            nonlocal begin
            count, begun = self._slice, time.perf_counter()
            parts.append(pack_spans(spans[begin : begin + count]))
            seconds = time.perf_counter() - begun
            begin += count
            self._cpu_before += seconds
            self._slice = max(1, min(count * 2, int(count * _SLICE / max(seconds, 1e-9))))
            return begin < len(spans)

        self.slices.run(pack)
        return parts

    def _start(self, context: ExporterContext | None, timeout: float) -> None:
        """Start the process, and the exporter in it. ``context`` is ``None`` when a cycle starts it again."""
        self._context = context = context or self._context
        if context is None:
            raise HookFailed("start was called without a context")
        if (left := self._process) is not None:
            self._forget_process(left)
        self._process = process = RunningProcess(self._plan, context)
        with process.talking:
            try:
                outcome = process.ask("start", timeout, limit=timeout + self._plan.load_timeout)
            except ChannelClosed:
                raise self._died(process) from None
            except TimeoutError:
                self._forget_process(process)
                raise HookFailed(f"hook start did not return within {timeout:.3g} s, and its process was ended") from None
        settle(outcome)
        self.ended = ""

    def _shut_down(self, timeout: float) -> Rejected | None:
        """Shut the exporter down and end its process, also beside a hook that runs in it."""
        if (process := self._process) is None:
            return None
        deadline = time.monotonic() + timeout
        process.kill_at(deadline)
        outcome = None
        if not process.talking.acquire(blocking=False):
            # It may be the sending that the other thread cannot end.
            in_background(lambda: process.shut_down_beside(timeout), "eventcore-shutdown-beside")
            # The thread that waits for the other hook then finds that the process has ended.
            process.wait(deadline - time.monotonic())
            return None
        try:
            outcome = process.ask("shutdown", timeout, limit=timeout)
            process.wait(deadline - time.monotonic())
        except (ChannelClosed, TimeoutError):
            pass  # it is ended below
        finally:
            self._forget_process(process)
            process.talking.release()
        return settle(outcome)

    def _died(self, process: RunningProcess) -> ProcessEnded:
        """Note that the process has ended without being asked to. The caller holds ``talking``."""
        if self._process is not process:
            return ProcessEnded(self.ended or "the exporter's process was ended")  # another thread has noted it
        self.deaths = 1 if time.monotonic() - process.launched > _LONG_LIFE else self.deaths + 1
        how = self._forget_process(process)
        self.ended = f"the exporter's process {process.pid} {how}"
        return ProcessEnded(self.ended)

    def _forget_process(self, process: RunningProcess) -> str:
        """End the process, if it runs. Returns how it has ended."""
        self._cpu_before += process.cpu_seconds
        self._process = None
        return process.close()
