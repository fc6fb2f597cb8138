"""Runs one exporter's hooks: ``def`` hooks in the worker thread, ``async def`` hooks on an event loop in another thread."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any, Final, final

import msgspec

from eventcore.exporting.delivery.handle import ExporterHandle
from eventcore.ground import in_background

_logger: Final = logging.getLogger(__name__)
_SHORTEST_WAIT: Final = 0.01


class HookFailed(Exception):
    """A hook failed in a way that is not an exception to pass on: it exited, timed out, or returned nonsense."""


@final
class RunningHook(msgspec.Struct, frozen=True):
    """A hook call that has not returned.

    Attributes:
        hook: its name.
        since, deadline: when it began and when it should end (``time.monotonic``).
        thread_id: the thread that it runs in.
    """

    hook: str
    since: float
    deadline: float
    thread_id: int | None

    def cpu_seconds(self) -> float | None:
        """Processor time that the hook's thread has used in all; ``None`` where the platform cannot say."""
        if self.thread_id is None or not hasattr(time, "pthread_getcpuclockid"):
            return None
        try:
            return time.clock_gettime(time.pthread_getcpuclockid(self.thread_id))
        except OSError:
            return None


class HookRunner:
    """Calls hooks one at a time, measures the processor time they use, and raises nothing but ``Exception``.

    The event loop of ``async def`` hooks is created when the first one is called, and then lives
    until ``stop_loop``.

    Attributes:
        handle: the exporter's hooks.
        running: the hook that is being called by the worker thread; any thread may read it.
        cpu_seconds: processor time that hooks have used.
    """

    def __init__(self, handle: ExporterHandle, name: str) -> None:
        self.handle = handle
        self.running: RunningHook | None = None
        self.cpu_seconds = 0.0
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread: threading.Thread | None = None
        self._loop_stopped = False
        # The task of each ``async def`` hook that has not ended. Used on the loop, and read by a
        # hook that asks `in_hook`.
        self._tasks: dict[Future[Any], asyncio.Task[Any]] = {}

    def call(self, hook: str, timeout: float, **arguments: Any) -> Any:
        """Call a hook from the worker thread and return its answer.

        An ``async def`` hook is cancelled at its timeout. A ``def`` hook cannot be cancelled: it
        gets the timeout as an argument, and another thread sees by ``running`` that it has overrun
        it.

        Raises:
            Exception: what the hook raised.
            HookFailed: it tried to exit its thread, was cancelled at its timeout, or returned a
                coroutine from a ``def``.
        """
        since = time.monotonic()
        is_async = self.handle.is_async(hook)
        thread = self._start_loop() if is_async else threading.current_thread()
        self.running = RunningHook(hook, since, since + timeout, thread.ident)
        try:
            return self._call_async(hook, timeout, arguments) if is_async else self._call_sync(hook, timeout, arguments)
        finally:
            self.running = None

    def in_hook(self) -> bool:
        """Whether the caller runs inside a hook of this exporter. Code beside a hook on its event loop does not."""
        running = self.running
        if running is None or running.thread_id != threading.get_ident():
            return False
        if self._loop_thread is None or running.thread_id != self._loop_thread.ident:
            return True
        return asyncio.current_task() in self._tasks.values()

    def shut_down_beside(self, timeout: float) -> None:
        """Call ``shutdown`` while another hook has not returned, without waiting for either. Any thread."""
        if self.handle.is_async("shutdown"):
            self._start_loop()
            outcome = self._submit("shutdown", {"timeout": timeout})
        else:
            outcome = in_background(lambda: self.handle.call("shutdown", timeout=timeout), f"eventcore-shutdown-{self._name}")
        outcome.add_done_callback(self._log_failure)

    def stop_loop(self, timeout: float) -> None:
        """End the event loop of ``async def`` hooks and cancel the tasks that the exporter has left on it. Worker thread."""
        loop, thread = self._loop, self._loop_thread
        if loop is None or thread is None or self._loop_stopped:
            return
        # Before the loop is stopped: its thread runs the loop again until it sees this.
        self._loop_stopped = True
        half = max(timeout / 2, _SHORTEST_WAIT)

        async def cancel_tasks() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=half)

        with contextlib.suppress(Exception):  # the exporter is shut down: no caller is left for what its tasks raise
            asyncio.run_coroutine_threadsafe(cancel_tasks(), loop).result(half)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(half)
        if not thread.is_alive():
            loop.close()

    def _call_sync(self, hook: str, timeout: float, arguments: dict[str, Any]) -> Any:
        with self._measured(hook, "thread", Exception):
            answer = self.handle.call(hook, timeout=timeout, **arguments)
        if inspect.iscoroutine(answer):
            answer.close()
            raise HookFailed(f"hook {hook} returned a coroutine from a plain function: declare it 'async def'")
        return answer

    def _call_async(self, hook: str, timeout: float, arguments: dict[str, Any]) -> Any:
        outcome = self._submit(hook, {"timeout": timeout, **arguments})
        try:
            return outcome.result(timeout)
        except TimeoutError:
            if outcome.done():
                raise  # the hook's own TimeoutError
        self._on_loop(lambda: self._tasks[outcome].cancel() if outcome in self._tasks else None)
        # Wait without limit: no second hook is called before this one has ended, and it may ignore
        # its cancellation.
        outcome.exception()
        raise HookFailed(f"hook {hook} did not return within {timeout:.3g} s and was cancelled")

    def _submit(self, hook: str, arguments: dict[str, Any]) -> Future[Any]:
        """Start an ``async def`` hook on the loop.

        The future is done when the hook has really ended, cancelled or not. (The future of
        ``asyncio.run_coroutine_threadsafe`` would be done as soon as it is cancelled.)
        """
        outcome: Future[Any] = Future()

        async def run() -> Any:
            with self._measured(hook, "event loop", Exception, asyncio.CancelledError):
                return await self.handle.call(hook, **arguments)

        def settle(task: asyncio.Task[Any]) -> None:
            del self._tasks[outcome]
            if task.cancelled():
                outcome.set_exception(HookFailed(f"hook {hook} was cancelled"))
            elif error := task.exception():
                outcome.set_exception(error)
            else:
                outcome.set_result(task.result())

        def start() -> None:
            self._tasks[outcome] = task = asyncio.ensure_future(run())
            task.add_done_callback(settle)

        self._on_loop(start)
        return outcome

    @contextlib.contextmanager
    def _measured(self, hook: str, home: str, *passed: type[BaseException]) -> Generator[None]:
        """Measure the processor time of a hook, and replace what it raises unless it is ``passed``.

        ``SystemExit`` and its like would end the thread or event loop (``home``) of all hooks.
        """
        begin = time.thread_time()
        try:
            yield
        except passed:
            raise
        except BaseException as error:
            raise HookFailed(f"hook {hook} raised {type(error).__name__}, which would have ended its {home}") from error
        finally:
            self.cpu_seconds += time.thread_time() - begin

    def _on_loop(self, work: Callable[[], object]) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(work)

    def _start_loop(self) -> threading.Thread:
        if self._loop_thread is None:
            self._loop = asyncio.new_event_loop()
            self._loop_thread = threading.Thread(target=self._run_loop, name=f"eventcore-loop-{self._name}", daemon=True)
            self._loop_thread.start()
        return self._loop_thread

    def _run_loop(self) -> None:
        loop = self._loop
        assert loop is not None
        asyncio.set_event_loop(loop)
        while not self._loop_stopped:
            try:
                loop.run_forever()
            except BaseException as error:  # noqa: BLE001  # the exporter's hooks and other tasks need the loop
                # A task that the exporter started itself has raised SystemExit or
                # KeyboardInterrupt.
                _logger.warning(
                    "exporter %r: %s in one of its tasks ended its event loop; going on", self._name, type(error).__name__
                )

    def _log_failure(self, outcome: Future[Any]) -> None:
        if error := outcome.exception():
            _logger.warning("exporter %r: shutdown raised %s: %s", self._name, type(error).__name__, error)
