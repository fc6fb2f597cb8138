"""Collecting: from cells and callbacks to one set of plain values, shared by the pipelines that are due together."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from eventcore.recording.instruments import CallbackHandle, Instrument
from eventcore.recording.registry import InstrumentRegistry
from eventcore.recording.values import Collection, CounterData, GaugeData, HistogramData

_CALLBACK_LIMIT: Final = 1.0
# The interpreter is shared: after so much collecting in one go, whoever waits for it gets its turn.
_SLICE: Final = 0.0005
_REST: Final = 0.003
_logger: Final = logging.getLogger(__name__)


class Collector:
    """Makes collections, one at a time, and hands the newest to everybody whose demand it meets.

    Args:
        registry: what to collect from.
        callback_limit: seconds that the callbacks may take together before those that have not answered are left out.
    """

    def __init__(self, registry: InstrumentRegistry, *, callback_limit: float = _CALLBACK_LIMIT) -> None:
        self._registry = registry
        self._callback_limit = callback_limit
        self._lock = threading.Lock()
        self._newest: tuple[float, Collection] | None = None
        self._preparations: dict[Callable[[], object], None] = {}

    def prepare_by(self, function: Callable[[], object]) -> None:
        """Have ``function`` called at the beginning of each collection: it folds what its owner has put aside."""
        self._preparations[function] = None

    def prepare_no_more_by(self, function: Callable[[], object]) -> None:
        """Call ``function`` no more."""
        self._preparations.pop(function, None)

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
        """Forget what a parent process was doing."""
        self._lock = threading.Lock()
        self._newest = None

    def _collect(self, callback_limit: float) -> Collection:
        for prepare in tuple(self._preparations):
            try:
                prepare()
            except Exception:
                _logger.exception("%r failed to prepare a collection", prepare)
        observed = _Sampling(self._registry.instruments()).run(callback_limit)
        start, now = self._registry.start_time_ns, time.time_ns()
        counters: list[CounterData] = []
        gauges: list[GaugeData] = []
        histograms: list[HistogramData] = []
        rest = _Pace().rest
        for instrument in self._registry.instruments() if self._registry.enabled else ():
            match instrument.collect(observed.get(instrument, {}), start, now, rest):
                case CounterData() as data:
                    counters.append(data)
                case GaugeData() as data:
                    gauges.append(data)
                case HistogramData() as data:
                    histograms.append(data)
                case None:
                    pass
            rest()
        return Collection(now, tuple(counters), tuple(gauges), tuple(histograms))


class _Pace:
    """Rests when a slice of processor time has been used."""

    def __init__(self) -> None:
        self._slice_end = time.thread_time() + _SLICE

    def rest(self) -> None:
        if time.thread_time() > self._slice_end:
            time.sleep(_REST)
            self._slice_end = time.thread_time() + _SLICE


class _Sampling:
    """One round of asking the callbacks, on a thread of its own so that one that hangs holds up nobody for long."""

    def __init__(self, instruments: tuple[Instrument[Any], ...]) -> None:
        self._waiting = [handle for instrument in instruments for handle in instrument.callbacks() if not handle.busy]
        self._observed: dict[Instrument[Any], dict[tuple[str, ...], Any]] = {}
        self._current: CallbackHandle | None = None
        self._abandoned = False

    def run(self, limit: float) -> Mapping[Instrument[Any], Mapping[tuple[str, ...], Any]]:
        if not self._waiting:
            return {}
        thread = threading.Thread(target=self._ask_all, name="eventcore-callbacks", daemon=True)
        thread.start()
        thread.join(limit)
        if not thread.is_alive():
            return self._observed
        self._abandoned = True
        if hanging := self._current:
            hanging.fail(f"it has not returned within {limit:.1f} s")
        observed, rest = self._observed.copy(), [handle for handle in self._waiting if not handle.busy]
        if rest and len(rest) < len(self._waiting) + 1 and hanging:
            successor = _Sampling(())
            successor._waiting, successor._observed = rest, observed
            return successor.run(limit)
        return observed

    def _ask_all(self) -> None:
        while self._waiting and not self._abandoned:
            handle = self._waiting.pop()
            self._current, handle.busy = handle, True
            try:
                answer = handle.function()
            except BaseException as error:  # noqa: BLE001  # an application's callback must not end the round
                handle.fail(f"it raised {type(error).__name__}: {error}", exc_info=True)
            else:
                if not self._abandoned:
                    self._keep(handle, answer)
            finally:
                handle.busy = False

    def _keep(self, handle: CallbackHandle, answer: object) -> None:
        instrument = handle.instrument
        values = cast(Mapping[object, object], answer) if isinstance(answer, Mapping) else {(): answer}
        kept = self._observed.setdefault(instrument, {})
        for labels, value in values.items():
            if value is None:
                continue
            if not instrument.check_labels(labels) or not instrument.check_observation(value):
                handle.fail(
                    f"{labels!r}: {value!r:.80} does not fit the labels {instrument.label_names} of a {instrument.kind}"
                )
                continue
            kept[cast(tuple[str, ...], labels)] = value
