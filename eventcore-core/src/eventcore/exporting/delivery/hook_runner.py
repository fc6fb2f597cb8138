"""Runs one exporter's hooks: ``def`` hooks in the worker thread, ``async def`` hooks on an event loop in another thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Generator
from concurrent.futures import Future
from types import CoroutineType
from typing import Any, Final, final

import msgspec

from eventcore.exporting.delivery.handle import ExporterHandle
from eventcore.exporting.forking import ForkGuard
from eventcore.ground import cancel_and_wait, describe_error, in_background, own_logger, spawn

_logger: Final = own_logger(__name__)


class HookFailed(Exception):
    """A hook failed in a way that is not an exception to pass on: it exited, timed out, or returned nonsense.

    Args:
        problem: what happened.
        outcome_unknown: whether the hook may have delivered all the same, because it was cut.
    """

    def __init__(self, problem: str, *, outcome_unknown: bool = False) -> None:
        super().__init__(problem)
        self.outcome_unknown = outcome_unknown


class ProcessEnded(HookFailed):
    """The process of an exporter has ended. What its hooks were handed may have arrived, and is not sent again."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem, outcome_unknown=True)


class FarError(Exception):
    """An exception that a hook has raised in another process. Its subclass has the name of that exception's class.

    Attributes:
        traceback: of the exception, as text.
        is_data: whether converting a bad value raises such exceptions.
        may_be_data: whether converting a bad value may raise such an exception, if the hook only converts.
    """

    def __init__(self, text: str, *, traceback: str, is_data: bool, may_be_data: bool) -> None:
        super().__init__(text)
        self.traceback = traceback
        self.is_data = is_data
        self.may_be_data = may_be_data


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
    """Calls hooks one at a time, measures the processor time they use, and raises only ``Exception``.

    The event loop of ``async def`` hooks is created when the first one is called, and then lives
    until ``stop_loop``.

    Attributes:
        handle: the exporter's hooks.
        fork: keeps forks of the process between two hooks.
        running: the hook that is being called by the worker thread; any thread may read it.
        cpu_seconds: processor time that hooks have used.
        overran: whether the last hook that ended took longer than its timeout.
    """

    def __init__(self, handle: ExporterHandle, name: str, fork: ForkGuard) -> None:
        self.handle = handle
        self.fork = fork
        self.running: RunningHook | None = None
        self.cpu_seconds = 0.0
        self.overran = False
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread: threading.Thread | None = None
        self._loop_stopped = False
        # The tasks of ``async def`` hooks that have not ended; used on the loop alone.
        self._tasks: set[asyncio.Task[Any]] = set()

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
        with self.fork.in_call:
            return self._call(hook, timeout, arguments)

    def _call(self, hook: str, timeout: float, arguments: dict[str, Any]) -> Any:
        since = time.monotonic()
        loop = self._start_loop() if hook in self.handle.async_hooks else None
        thread = threading.current_thread() if loop is None else self._loop_thread
        self.running = RunningHook(hook, since, since + timeout, thread.ident if thread else None)
        try:
            if loop is not None:
                # Wait without limit: `_run_async` ends the hook at its timeout. A hook that ignores its
                # cancellation is waited for, because no second hook may be called beside it.
                return asyncio.run_coroutine_threadsafe(self._run_async(hook, timeout, arguments), loop).result()
            with self._measured(hook, Exception):
                answer = self.handle.call(hook, timeout=timeout, **arguments)
            # Not `isinstance`, which asks the answer for its `__class__`: that may be a plugin's property.
            if type(answer) is CoroutineType:
                answer.close()
                raise HookFailed(f"hook {hook} returned a coroutine from a plain function: declare it 'async def'")
            return answer
        finally:
            self.overran = time.monotonic() > since + timeout
            self.running = None

    def in_hook(self) -> bool:
        """Whether the caller runs inside a hook of this exporter. Code beside a hook on its event loop does not."""
        running = self.running
        if running is None or running.thread_id != threading.get_ident():
            return False
        if self._loop_thread is None or running.thread_id != self._loop_thread.ident:
            return True
        return asyncio.current_task() in self._tasks

    def shut_down_beside(self, timeout: float) -> None:
        """Call ``shutdown`` while another hook has not returned, without waiting for either. Any thread."""
        outcome: Future[Any]
        if "shutdown" in self.handle.async_hooks:
            outcome = asyncio.run_coroutine_threadsafe(self._run_async("shutdown", timeout, {}), self._start_loop())
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

        async def end() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            if tasks:
                # Half of the time for the tasks: one that ignores its cancellation is left behind.
                await asyncio.wait(tasks, timeout=timeout / 2)
            loop.stop()

        asyncio.run_coroutine_threadsafe(end(), loop)
        # A hook that blocks the loop keeps it from running `end`: its daemon thread is then left behind.
        thread.join(timeout)
        if not thread.is_alive():
            loop.close()

    async def _run_async(self, hook: str, timeout: float, arguments: dict[str, Any]) -> Any:
        """Run an ``async def`` hook in a task of its own, and end only when that task has ended, cancelled or not."""

        async def run() -> Any:
            with self._measured(hook, Exception, asyncio.CancelledError):
                return await self.handle.call(hook, timeout=timeout, **arguments)

        task = spawn(run(), f"eventcore-hook-{hook}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        done, _ = await asyncio.wait([task], timeout=timeout)
        if not done:
            await cancel_and_wait(task)
            # Also when it has returned after all: a hook that swallows its cancellation has not
            # finished its work.
            raise HookFailed(f"hook {hook} did not return within {timeout:.3g} s and was cancelled", outcome_unknown=True)
        if task.cancelled():
            raise HookFailed(f"hook {hook} was cancelled", outcome_unknown=True)
        return task.result()

    @contextlib.contextmanager
    def _measured(self, hook: str, *passed: type[BaseException]) -> Generator[None]:
        """Measure the processor time of a hook, and replace what it raises unless it is ``passed``.

        ``SystemExit`` and its like would end the thread or the event loop of all hooks.
        """
        begin = time.thread_time()
        try:
            yield
        except passed:
            raise
        except BaseException as error:
            raise HookFailed(f"hook {hook} raised {describe_error(error)}; expected a subclass of Exception") from error
        finally:
            self.cpu_seconds += time.thread_time() - begin

    def _start_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._loop_thread = threading.Thread(
                target=self._run_loop, args=(self._loop,), name=f"eventcore-loop-{self._name}", daemon=True
            )
            self._loop_thread.start()
        return self._loop

    def _run_loop(self, loop: asyncio.AbstractEventLoop) -> None:
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
        # The future is cancelled when the worker ends the event loop in the middle of the hook.
        if not outcome.cancelled() and (error := outcome.exception()):
            _logger.warning("exporter %r: shutdown raised %s", self._name, describe_error(error))
