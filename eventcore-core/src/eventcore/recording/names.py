"""Names of instruments and labels, and what is known about the values of a label. Checked when an instrument is created."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from eventcore.errors import InvalidInstrument

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:[._][a-z0-9]+)*")
_MAX_NAME: Final = 255
_MAX_UNIT: Final = 63
_MAX_LABELS: Final = 32
# Prometheus keeps `le` and `quantile` for histograms and summaries, and every name with two leading underscores for itself.
_RESERVED_LABELS: Final = frozenset({"le", "quantile"})


class Label(str):
    """The name of a label, with what is known about its values in advance.

    A plain ``str`` in the place of a ``Label`` means an open one.

    Args:
        name: the name.
        values: all values, when they are a fixed set.
        open: whether the values come from the application (names of its commands, types of its events), so that there can be
            any number of them. False without ``values`` means one value a store or process, such as the version.
        histogram_share: the part of its cap on series that a histogram with this label may use.
        room: so many series of an instrument with this open label fit also when all instruments have reached their cap.

    >>> outcome = Label("outcome", ("committed", "conflict"))
    >>> outcome, outcome.values, outcome.open
    ('outcome', ('committed', 'conflict'), False)
    """

    values: tuple[str, ...]
    open: bool
    histogram_share: float
    room: int

    def __new__(
        cls,
        name: str,
        values: tuple[str, ...] = (),
        *,
        open: bool = False,  # noqa: A002  # reads best
        histogram_share: float = 1.0,
        room: int = 0,
    ) -> Label:
        label = super().__new__(cls, name)
        label.values, label.open, label.histogram_share, label.room = values, open, histogram_share, room
        return label


def canonical_name(name: str) -> str:
    """The form in which two names are compared: ``a.b`` and ``a_b`` are one name to an exporter that has no dots."""
    return name.replace(".", "_")


def check_metric_name(name: str) -> None:
    """Raise ``InvalidInstrument`` unless ``name`` is words of ``a-z 0-9`` joined by single dots or underscores."""
    if not isinstance(name, str) or len(name) > _MAX_NAME or not _NAME.fullmatch(name):
        raise InvalidInstrument(
            f"metric name {name!r:.300} does not fit: expected up to {_MAX_NAME} characters, words of a-z and 0-9 joined by "
            "single dots or underscores, beginning with a letter, for example 'orders.shipped'"
        )


def check_label_names(metric: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return the label names of ``metric`` as a tuple, or raise ``InvalidInstrument``."""
    if isinstance(names, str):
        raise InvalidInstrument(
            f"labels of {metric!r}: expected a sequence of names, got the text {names!r}; write ({names!r},)"
        )
    labels = tuple(names)
    if len(labels) > _MAX_LABELS:
        raise InvalidInstrument(f"{metric!r} has {len(labels)} labels; at most {_MAX_LABELS} are allowed")
    seen: dict[str, str] = {}
    for label in labels:
        if not isinstance(label, str) or len(label) > _MAX_NAME or not _NAME.fullmatch(label) or label in _RESERVED_LABELS:
            raise InvalidInstrument(
                f"label name {label!r:.300} of {metric!r} does not fit: expected words of a-z and 0-9 joined by single dots or "
                f"underscores, and none of {', '.join(sorted(_RESERVED_LABELS))}"
            )
        if (other := seen.setdefault(canonical_name(label), label)) is not label:
            raise InvalidInstrument(
                f"labels {other!r} and {label!r} of {metric!r} are the same name: dots and underscores do not count"
            )
    if len(seen) < len(labels):
        raise InvalidInstrument(f"{metric!r} names a label twice: {', '.join(labels)}")
    return labels


def check_unit(metric: str, unit: str) -> None:
    """Raise ``InvalidInstrument`` unless ``unit`` is empty or printable ASCII without spaces, as in UCUM (https://ucum.org)."""
    if not isinstance(unit, str) or len(unit) > _MAX_UNIT or not unit.isascii() or not unit.isprintable() or " " in unit:
        raise InvalidInstrument(
            f"unit {unit!r:.80} of {metric!r} does not fit: expected a UCUM unit of up to {_MAX_UNIT} ASCII characters, for "
            "example 's', 'By', '1' or '{order}'"
        )
