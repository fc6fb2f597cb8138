"""Runs the hooks of one exporter: ``def`` hooks in the worker thread, ``async def`` hooks on a loop of their own."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import threading
import time
from concurrent.futures import Future
from typing import Any, Final, final

import msgspec

from eventcore.exporting.delivery.handle import ExporterHandle

_logger: Final = logging.getLogger(__name__)


class HookFailed(Exception):
    """A hook did not do its part in a way that is no exception of its own: it exited, timed out or returned nonsense."""


@final
class RunningHook(msgspec.Struct, frozen=True):
    """A hook call that has not returned; times are of ``time.monotonic``."""

    hook: str
    since: float
    deadline: float
    thread_id: int | None

    def cpu_seconds(self) -> float | None:
        """Processor time of the thread that the hook runs in, ``None`` where the platform cannot tell."""
        if self.thread_id is None or not hasattr(time, "pthread_getcpuclockid"):
            return None
        try:
            return time.clock_gettime(time.pthread_getcpuclockid(self.thread_id))
        except OSError:
            return None


class HookRunner:
    """Calls hooks one at a time, measures the processor time they use, and lets nothing but exceptions out."""

    def __init__(self, handle: ExporterHandle, name: str) -> None:
        self._handle = handle
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread: threading.Thread | None = None
        self._loop_stopped = False
        self._tasks: dict[Future[Any], asyncio.Future[None]] = {}
        self.running: RunningHook | None = None
        self.cpu_seconds = 0.0

    def call(self, hook: str, timeout: float, **arguments: Any) -> Any:
        """Call a hook from the worker thread and return its answer.

        An ``async def`` hook is cancelled at its timeout. A ``def`` hook cannot be: it gets the timeout as an argument, and
        whoever wants to know how long it has been running reads ``running``.

        Raises:
            Exception: whatever the hook raised.
            HookFailed: it exited its thread, was cancelled at its timeout, or returned a coroutine from a ``def``.
        """
        since = time.monotonic()
        is_async = self._handle.is_async(hook)
        thread = self._start_loop() if is_async else threading.current_thread()
        self.running = RunningHook(hook, since, since + timeout, thread.ident)
        try:
            return self._call_async(hook, timeout, arguments) if is_async else self._call_sync(hook, timeout, arguments)
        finally:
            self.running = None

    def in_hook(self) -> bool:
        """Whether the caller is itself inside a hook of this exporter."""
        running = self.running
        if running is None or running.thread_id != threading.get_ident():
            return False
        if self._loop_thread is None or running.thread_id != self._loop_thread.ident:
            return True
        return asyncio.current_task() in self._tasks.values()

    def shut_down_beside(self, timeout: float) -> None:
        """Call ``shutdown`` while another hook has not returned, without waiting for it."""
        if self._handle.is_async("shutdown"):
            self._start_loop()
            self._submit("shutdown", {"timeout": timeout}).add_done_callback(self._log_failure)
        else:
            call = threading.Thread(
                target=self._shut_down, args=(timeout,), name=f"eventcore-shutdown-{self._name}", daemon=True
            )
            call.start()

    def stop_loop(self, timeout: float) -> None:
        """End the loop of the ``async def`` hooks, cancelling the tasks that the exporter has left on it."""
        loop, thread = self._loop, self._loop_thread
        if loop is None or thread is None or self._loop_stopped:
            return
        self._loop_stopped = True

        async def cancel_rest() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=max(timeout / 2, 0.01))

        with contextlib.suppress(Exception):  # the loop is going away; what its tasks raise now has no reader
            asyncio.run_coroutine_threadsafe(cancel_rest(), loop).result(max(timeout / 2, 0.01))
        loop.call_soon_threadsafe(loop.stop)
        thread.join(max(timeout / 2, 0.01))
        if not thread.is_alive():
            loop.close()

    def _call_sync(self, hook: str, timeout: float, arguments: dict[str, Any]) -> Any:
        begin = time.thread_time()
        try:
            answer = self._handle.call(hook, timeout=timeout, **arguments)
        except Exception:
            raise
        except BaseException as error:
            raise HookFailed(f"hook {hook} raised {type(error).__name__}, which would have ended its thread") from error
        finally:
            self.cpu_seconds += time.thread_time() - begin
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
                raise
        self._cancel(outcome)
        # No second call before this one has returned, however long it takes to give in.
        outcome.exception()
        raise HookFailed(f"hook {hook} did not return within {timeout:.3g} s and was cancelled")

    def _submit(self, hook: str, arguments: dict[str, Any]) -> Future[Any]:
        """Begin an ``async def`` hook on the loop; the future is done when the hook has really ended, cancelled or not."""
        assert self._loop is not None
        outcome: Future[Any] = Future()

        def begin() -> None:
            task = asyncio.ensure_future(self._run_async(hook, arguments, outcome))
            self._tasks[outcome] = task
            task.add_done_callback(lambda _: self._tasks.pop(outcome, None))

        self._loop.call_soon_threadsafe(begin)
        return outcome

    def _cancel(self, outcome: Future[Any]) -> None:
        def cancel() -> None:
            if task := self._tasks.get(outcome):
                task.cancel()

        assert self._loop is not None
        self._loop.call_soon_threadsafe(cancel)

    async def _run_async(self, hook: str, arguments: dict[str, Any], outcome: Future[Any]) -> None:
        begin = time.thread_time()
        try:
            answer = await self._handle.call(hook, **arguments)
        except asyncio.CancelledError:
            outcome.set_exception(HookFailed(f"hook {hook} was cancelled"))
            raise
        except Exception as error:  # noqa: BLE001  # it goes to whoever waits for the outcome
            outcome.set_exception(error)
        except BaseException as error:  # noqa: BLE001  # it would end the loop that other hooks need
            failure = HookFailed(f"hook {hook} raised {type(error).__name__}, which would have ended its event loop")
            failure.__cause__ = error
            outcome.set_exception(failure)
        else:
            outcome.set_result(answer)
        finally:
            self.cpu_seconds += time.thread_time() - begin

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
            except BaseException as error:  # noqa: BLE001  # the loop goes on
                # A task that the exporter started itself exited; the others live on.
                _logger.warning(
                    "exporter %r: %s in one of its tasks ended its event loop; going on", self._name, type(error).__name__
                )

    def _shut_down(self, timeout: float) -> None:
        with contextlib.suppress(BaseException):  # asked to let go, from a thread that nobody waits for
            self._handle.call("shutdown", timeout=timeout)

    def _log_failure(self, task: Future[Any]) -> None:
        if error := task.exception():
            _logger.warning("exporter %r: shutdown raised %s: %s", self._name, type(error).__name__, error)
