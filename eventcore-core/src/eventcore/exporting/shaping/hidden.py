"""What one exporter does not show, and why: for its state, and for the metric ``exporters.instruments.hidden``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, final, get_args

HiddenReason: TypeAlias = Literal["collision", "invalid", "filtered"]
"""``collision``: the exporter cannot tell it from another one, or cannot take it. ``invalid``: its values could not be
converted. ``filtered``: the settings ``include`` and ``exclude`` leave it out."""

_REASONS: Final[tuple[HiddenReason, ...]] = get_args(HiddenReason)
# Names come from the application: no more than so many are kept.
_MOST: Final = 1000


@final
class HiddenInstruments:
    """The instruments that one exporter does not show. Any thread may read it.

    Attributes:
        filtered: how many instruments the settings leave out.
    """

    def __init__(self) -> None:
        self.filtered = 0
        # By instrument, the text, and the reason if it is not shown at all.
        self._known: dict[str, tuple[str, HiddenReason | None]] = {}

    def add(self, instrument: str, text: str, reason: HiddenReason | None) -> bool:
        """Note an instrument; return whether it is a new one. ``None``: it is shown, but not as the settings say."""
        if instrument in self._known or len(self._known) >= _MOST:
            return False
        self._known[instrument] = text, reason
        return True

    def texts(self) -> Mapping[str, str]:
        """By instrument, why the exporter does not show it. Filtered ones, which the operator has chosen, are left out."""
        return {instrument: text for instrument, (text, _) in self._known.copy().items()}

    def counts(self) -> Mapping[HiddenReason, int]:
        """How many instruments are hidden, by reason."""
        counts: dict[HiddenReason, int] = dict.fromkeys(_REASONS, 0)
        counts["filtered"] = self.filtered
        for _, reason in self._known.copy().values():
            if reason is not None:
                counts[reason] += 1
        return counts
