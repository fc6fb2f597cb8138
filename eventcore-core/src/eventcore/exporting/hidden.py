"""The instruments that one exporter does not show, and why."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, get_args

from eventcore.exporting.context import HiddenKind
from eventcore.ground import log_safely, text_of

# So many instruments are kept, each with a name of so many characters.
_MOST: Final = 10_000
_LONGEST_NAME: Final = 200
_KINDS: Final[tuple[HiddenKind, ...]] = get_args(HiddenKind)


class HiddenInstruments:
    """What one exporter leaves out. Any thread may call every method.

    Args:
        logger: the exporter's logger.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._reasons: dict[str, str] = {}
        # By instrument and kind. Assigning one key of a dict is atomic, so threads need no lock here.
        self._kinds: dict[tuple[str, HiddenKind], None] = {}

    def report(self, instrument: str, reason: str, kind: HiddenKind = "invalid") -> None:
        """Note that an instrument cannot be shown; logged once for each instrument."""
        instrument, reason = text_of(instrument, _LONGEST_NAME), text_of(reason)
        self._count(instrument, kind)
        if instrument not in self._reasons and len(self._reasons) < _MOST:
            self._reasons[instrument] = reason
            log_safely(self._logger, logging.WARNING, f"{instrument!r} is not shown: {reason}")

    def leave_out(self, instrument: str) -> None:
        """Note that the configuration leaves an instrument out, which is wanted and therefore not logged."""
        self._count(instrument, "filtered")

    @property
    def reasons(self) -> Mapping[str, str]:
        """By instrument, why the exporter cannot show it."""
        return dict(self._reasons)

    def counts(self) -> Mapping[HiddenKind, int]:
        """The number of instruments by kind of reason, also those without any."""
        kinds = [kind for _, kind in list(self._kinds)]
        return {kind: kinds.count(kind) for kind in _KINDS}

    def _count(self, instrument: str, kind: HiddenKind) -> None:
        if len(self._kinds) < _MOST:
            self._kinds[instrument, kind if kind in _KINDS else "invalid"] = None
