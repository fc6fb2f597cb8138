"""Between the pipeline and the exporter under test: what the hooks are given and how long they take, and failures on demand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, final

import msgspec

from eventcore.exporting.delivery.handle import ExporterHandle

# A chunk of up to so many items is compared with what it was before the call, field by field.
_COMPARED: Final = 50
_DATA: Final = ("counters", "gauges", "histograms", "spans")


@final
class HookCall(msgspec.Struct, frozen=True):
    """A hook call that has ended.

    Attributes:
        hook: its name.
        arguments: what it was given.
        seconds: how long it took.
        error: what it raised; ``None`` when it returned.
        answer: what it returned.
    """

    hook: str
    arguments: Mapping[str, Any]
    seconds: float
    error: BaseException | None
    answer: Any


class _Failure(msgspec.Struct):
    when: Literal["before", "after"]
    error: Callable[[], Exception]
    skip: int


class WatchedHandle:
    """Has the attributes and methods of the ``ExporterHandle`` that it is given, and calls its hooks.

    Attributes:
        calls: the hook calls that have ended, oldest first.
        changed: what a hook has changed of its arguments, one line each.
    """

    def __init__(self, handle: ExporterHandle) -> None:
        self._handle = handle
        self.implemented = handle.implemented
        self.async_hooks = handle.async_hooks
        self.kinds = handle.kinds
        self.signals = handle.signals
        self.temporality = handle.temporality
        self.interval = handle.interval
        self.final_cycle = handle.final_cycle
        self.calls: list[HookCall] = []
        self.changed: list[str] = []
        self._failures: dict[str, _Failure] = {}
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)

    def fail_next(self, hook: str, error: Callable[[], Exception], *, after: bool = False, skip: int = 0) -> None:
        """Let one call of a hook fail.

        Args:
            hook: its name.
            error: makes what is raised to the pipeline.
            after: whether the exporter's hook is called first.
            skip: how many calls of the hook succeed before.
        """
        self._failures[hook] = _Failure("after" if after else "before", error, skip)

    def failed(self, hook: str) -> bool:
        """Whether the failure of this hook has happened."""
        return hook not in self._failures

    def call(self, hook: str, **arguments: Any) -> Any:
        """Call a hook as a pipeline does."""
        failure = self._failure_of(hook)
        if failure is not None and failure.when == "before":
            raise failure.error()
        if hook in self.async_hooks:
            return self._call_async(hook, arguments, failure)
        begun, before = time.monotonic(), _Snapshot(arguments)
        try:
            answer = self._handle.call(hook, **arguments)
        except BaseException as error:
            self._ended(hook, arguments, begun, before, error, None)
            raise
        self._ended(hook, arguments, begun, before, None, answer)
        if failure is not None:
            raise failure.error()
        return answer

    async def _call_async(self, hook: str, arguments: dict[str, Any], failure: _Failure | None) -> Any:
        begun, before = time.monotonic(), _Snapshot(arguments)
        try:
            answer = await self._handle.call(hook, **arguments)
        except BaseException as error:
            self._ended(hook, arguments, begun, before, error, None)
            raise
        self._ended(hook, arguments, begun, before, None, answer)
        if failure is not None:
            raise failure.error()
        return answer

    def _failure_of(self, hook: str) -> _Failure | None:
        with self._lock:
            failure = self._failures.get(hook)
            if failure is None:
                return None
            if failure.skip:
                failure.skip -= 1
                return None
            return self._failures.pop(hook)

    def _ended(
        self, hook: str, arguments: dict[str, Any], begun: float, before: _Snapshot, error: BaseException | None, answer: Any
    ) -> None:
        seconds = time.monotonic() - begun
        self.changed += [f"{hook}: {what}" for what in before.differences(arguments)]
        self.calls.append(HookCall(hook, arguments, seconds, error, answer))


class _Snapshot:
    """What a hook is given, before the call."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self._items: dict[str, tuple[Any, ...]] = {name: tuple(value) for name, value in arguments.items() if name in _DATA}
        self._texts = {name: repr(items) for name, items in self._items.items() if len(items) <= _COMPARED}

    def differences(self, arguments: Mapping[str, Any]) -> list[str]:
        found: list[str] = []
        for name, items in self._items.items():
            now = tuple(arguments[name])
            if len(now) != len(items) or any(one is not other for one, other in zip(now, items, strict=True)):
                found.append(
                    f"the sequence {name} is another one after the call: it had {len(items)} items, and has {len(now)}"
                )
            elif name in self._texts and repr(items) != self._texts[name]:
                found.append(f"a value in {name} was changed: it was {self._texts[name]:.300}, and is {items!r:.300}")
        return found
