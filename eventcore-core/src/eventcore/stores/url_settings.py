"""Reading the settings in the query of a store URL: ``?name=value&name=value``."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from eventcore.errors import InvalidStoreUrl


def chosen(name: str, value: str, allowed: Collection[str]) -> str:
    """The value of a setting that has a fixed set of values."""
    if value not in allowed:
        raise InvalidStoreUrl(f"{name}={value!r:.40} in the store URL; expected one of {', '.join(allowed)}")
    return value


def number(name: str, value: str, minimum: float, maximum: float, kind: Literal["seconds", "a whole number"]) -> float:
    """The value of a setting that is a number from ``minimum`` to ``maximum``."""
    try:
        found = float(value) if kind == "seconds" else int(value)
    except ValueError:
        found = -1
    # Comparisons with NaN are false, so NaN is refused, too.
    if not minimum <= found <= maximum:
        raise InvalidStoreUrl(f"{name}={value!r:.40} in the store URL; expected {kind} from {minimum} to {maximum}")
    return found
