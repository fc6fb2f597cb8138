"""Collecting: from cells and callbacks to one set of plain values, shared by the pipelines that are due together."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final, cast

from eventcore.ground import describe_error, shown, traceback_of
from eventcore.ground.pacing import THREAD_PAUSE, THREAD_SLICE
from eventcore.recording.instruments import CallbackHandle, Instrument, Observations
from eventcore.recording.registry import InstrumentRegistry
from eventcore.recording.values import Collection, CounterData, GaugeData, HistogramData, MetricData

_CALLBACK_LIMIT: Final = 1.0
_MAX_OBSERVATIONS: Final = 1_000_000
# Seconds: a callback is not given less before another thread asks the callbacks behind it.
_LEAST_PATIENCE: Final = 0.01


class Collector:
    """Makes collections, one at a time; callers that are due at about the same time get the same one.

    Args:
        registry: the instruments to collect from.
        callback_limit: seconds that all callbacks may take together; those that have not answered by then are left out.
    """

    def __init__(self, registry: InstrumentRegistry, *, callback_limit: float = _CALLBACK_LIMIT) -> None:
        self._registry = registry
        self._callback_limit = callback_limit
        self._lock = threading.Lock()
        self._newest: tuple[float, Collection] | None = None

    def collect(self, not_before: float, timeout: float) -> Collection:
        """A collection that was begun at ``not_before`` (``time.monotonic``) or later.

        Raises:
            TimeoutError: another collection was under way for longer than ``timeout`` seconds.
        """
        if not self._lock.acquire(timeout=max(timeout, 0)):
            raise TimeoutError(f"no collection within {timeout:.3f} s: another one is still under way")
        try:
            if self._newest is None or self._newest[0] < not_before:
                begun = time.monotonic()
                self._newest = (begun, self._collect(min(self._callback_limit, timeout)))
            return self._newest[1]
        finally:
            self._lock.release()

    def reset(self) -> None:
        """Start anew in a forked child, where the parent's thread may have held the lock."""
        self._lock = threading.Lock()
        self._newest = None

    def _collect(self, callback_limit: float) -> Collection:
        # All buffers at once, without a pause. Folded one by one as they are read, the total of commands and the count of their
        # durations would differ by the commands that end in between.
        for instrument in self._registry.instruments():
            instrument.fold()
        observed = _ask_callbacks(self._registry.instruments(), callback_limit)
        start, now = self._registry.start_time_ns, time.time_ns()
        pause = _Pacer().pause
        collected: list[MetricData] = []
        for instrument in self._registry.instruments() if self._registry.enabled else ():
            if (data := instrument.collect(observed.get(instrument, {}), start, now, pause)) is not None:
                collected.append(data)
            pause()
        return Collection(
            now,
            tuple(data for data in collected if isinstance(data, CounterData)),
            tuple(data for data in collected if isinstance(data, GaugeData)),
            tuple(data for data in collected if isinstance(data, HistogramData)),
        )


class _Pacer:
    """Cuts the work of this thread into slices, so that the event loop gets the GIL (see ``eventcore.ground.pacing``)."""

    def __init__(self) -> None:
        self._slice_end = time.thread_time() + THREAD_SLICE

    def pause(self) -> None:
        """Pause if a slice of processor time has been used up."""
        if time.thread_time() > self._slice_end:
            time.sleep(THREAD_PAUSE)
            self._slice_end = time.thread_time() + THREAD_SLICE


def _ask_callbacks(instruments: tuple[Instrument[Any], ...], limit: float) -> Mapping[Instrument[Any], Observations]:
    """What the callbacks give within ``limit`` seconds in all.

    One thread asks one callback after the other. When it takes half of the time that remains, another thread goes on with the
    callbacks that have not been asked. So callbacks that hang cost the limit once, and those behind them still answer.
    """
    asking = _Asking([handle for instrument in instruments for handle in instrument.callbacks() if not handle.busy])
    deadline = time.monotonic() + limit
    while asking.waiting and (remaining := deadline - time.monotonic()) > 0:
        thread = threading.Thread(target=asking.ask_waiting, name="eventcore-callbacks", daemon=True)
        asking.threads.append(thread)
        thread.start()
        thread.join(max(remaining / 2, _LEAST_PATIENCE))
    for thread in asking.threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    asking.over = True
    for handle in asking.asked:
        if handle.busy:
            handle.fail(f"it has not returned within {limit:.1f} s")
    observed: dict[Instrument[Any], dict[tuple[str, ...], Any]] = {}
    for instrument, values in asking.answers.copy():
        observed.setdefault(instrument, {}).update(values)
    return observed


class _Asking:
    """One round of asking callbacks, shared by the collecting thread and the threads that ask.

    Attributes:
        waiting: callbacks that have not been asked; ``list.pop`` is atomic, so each is asked by one thread.
        over: set when the round has ended; answers that come later are ignored.
    """

    def __init__(self, handles: list[CallbackHandle]) -> None:
        self.waiting = handles
        self.asked: list[CallbackHandle] = []
        self.answers: list[tuple[Instrument[Any], Observations]] = []
        self.threads: list[threading.Thread] = []
        self.over = False

    def ask_waiting(self) -> None:
        """Ask until no callback waits; runs in a thread that may hang in any of them."""
        while not self.over:
            try:
                handle = self.waiting.pop()
            except IndexError:
                return
            # Before `asked`, so that the collecting thread sees every callback that is still busy.
            handle.busy = True
            self.asked.append(handle)
            try:
                values = _checked(handle, handle.function())
                if not self.over:
                    self.answers.append((handle.instrument, values))
            except BaseException as error:  # noqa: BLE001  # an application's callback must not end the round
                handle.fail(f"it raised {describe_error(error)}\n{traceback_of(error)}")
            finally:
                handle.busy = False


def _checked(handle: CallbackHandle, answer: object) -> Observations:
    """The values of an answer that fit the instrument."""
    instrument = handle.instrument
    values = cast(Mapping[object, object], answer) if issubclass(type(answer), Mapping) else {(): answer}
    fitting: dict[tuple[str, ...], Any] = {}
    # Of a mapping that never ends, so many are looked at.
    for labels, value in islice(values.items(), _MAX_OBSERVATIONS):
        if value is None:
            continue
        checked = instrument.checked_labels(labels)
        if checked is not None and instrument.check_observation(value):
            fitting[checked] = value
        else:
            problem = f"does not fit the labels {instrument.label_names} of a {instrument.kind}"
            handle.fail(f"{shown(labels)}: {shown(value)} {problem}")
    return fitting
