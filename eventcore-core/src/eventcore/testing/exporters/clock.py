"""A clock that tests move: what eventcore measures and waits for goes by it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final, final

_SECONDS: Final = ("time", "monotonic", "perf_counter")
_NANOSECONDS: Final = ("time_ns", "monotonic_ns", "perf_counter_ns")


class _Time(ModuleType):
    """The module ``time`` with a moved clock, for the modules of eventcore that use it by its name."""

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


@final
class MovableClock:
    """The clock of eventcore, which runs as usual until ``advance`` moves it forward.

    Only the modules of eventcore and of its exporters see the moved clock, and only those that are imported when the clock is
    installed; other libraries see the real one. Threads that wait are woken by ``advance`` where ``on_advance`` is given.

    The fixture ``clock`` installs one and removes it after the test.

    Args:
        on_advance: called after each ``advance``, for example to wake what waits.

    >>> clock = MovableClock()
    >>> before = clock.time()
    >>> clock.advance(60)
    >>> 60 <= clock.time() - before < 61
    True
    """

    def __init__(self, on_advance: Callable[[], object] = lambda: None) -> None:
        self._offset_ns = 0
        self.on_advance = on_advance
        self._undo: list[Callable[[], None]] = []

    def advance(self, seconds: float) -> None:
        """Move the clock forward.

        Raises:
            ValueError: ``seconds`` is negative or not finite: these clocks never go back.
        """
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"advance({seconds!r}): expected seconds, 0 or more")
        self._offset_ns += round(seconds * 1e9)
        self.on_advance()

    def time(self) -> float:
        """Seconds since the Unix epoch."""
        return time.time() + self._offset_ns / 1e9

    def time_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""
        return time.time_ns() + self._offset_ns

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back."""
        return time.monotonic() + self._offset_ns / 1e9

    def install(self) -> None:
        """Let the modules of eventcore that are imported now use this clock. Undone by ``remove``."""
        moved = {name: self._moved(getattr(time, name), 1e-9) for name in _SECONDS}
        moved |= {name: self._moved(getattr(time, name), 1) for name in _NANOSECONDS}
        module = _Time("time")
        vars(module).update(moved)
        originals = {getattr(time, name): function for name, function in moved.items()}
        for name, found in list(sys.modules.items()):
            is_ours = name.split(".")[0] in ("eventcore", "eventcore_otel", "eventcore_prometheus")
            if is_ours and not name.startswith("eventcore.testing"):
                self._replace(found, module, originals)

    def remove(self) -> None:
        """Give the modules the real clock back."""
        while self._undo:
            self._undo.pop()()

    def _replace(self, module: ModuleType, moved_time: ModuleType, originals: dict[Any, Callable[[], Any]]) -> None:
        names = vars(module)
        for name, value in list(names.items()):
            if value is time:
                replacement: Any = moved_time
            elif callable(value) and getattr(value, "__module__", None) == "time" and value in originals:
                replacement = originals[value]
            else:
                continue
            self._undo.append(lambda name=name, value=value: names.__setitem__(name, value))  # type: ignore[misc]  # bound now
            names[name] = replacement

    def _moved(self, original: Callable[[], Any], scale: float) -> Callable[[], Any]:
        def now() -> Any:
            return original() + self._offset_ns * scale

        return now
