"""Log records of a store that does not answer: one when it goes away and one when it is back, however many calls fail."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final, final

from eventcore.errors import StoreUnavailable
from eventcore.ground import describe_error, own_logger

_logger: Final = own_logger("eventcore.store")


@final
class Outages:
    """Follows the calls to one store. Used on the store's event loop.

    A call that fails while the store answers others, because of a lock for example, is no outage.

    Args:
        store: the name of the store, for the records.
        is_up: whether the store answers, as the metric ``store.up`` says.
        clock: seconds, for durations.
    """

    def __init__(self, store: str, is_up: Callable[[], bool], clock: Callable[[], float] = monotonic) -> None:
        self._store = store
        self._is_up = is_up
        self._clock = clock
        self._since = 0.0
        self._away = False
        # Calls that failed since the last one that succeeded.
        self.failures = 0

    def failed(self, error: BaseException, seconds: float = 0.0) -> None:
        """Note a call that failed after ``seconds``. Errors other than ``StoreUnavailable`` are answers of the store.

        The outage counts from when its first call began: to that call, the store gave no answer any more.
        """
        if not isinstance(error, StoreUnavailable):
            return
        if not self.failures:
            self._since = self._clock() - seconds
        self.failures += 1
        if not self._away and not self._is_up():
            self._away = True
            _logger.warning(
                "the store %r is away; commands and reads fail until it answers again: %s", self._store, describe_error(error)
            )

    def succeeded(self) -> None:
        """Note that the store has answered, after calls have failed."""
        failures, self.failures = self.failures, 0
        if self._away:
            self._away = False
            _logger.warning(
                "the store %r is back after %.1f s; %d calls to it failed meanwhile",
                self._store,
                self._clock() - self._since,
                failures,
            )
