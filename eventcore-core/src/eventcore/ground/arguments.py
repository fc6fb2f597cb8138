"""Checks of numbers that callers pass."""

from __future__ import annotations

from math import inf
from typing import Final

LARGEST: Final = 2**63 - 1
"""The largest position, version and number: what a signed integer of 64 bits can hold."""


def at_least_0(name: str, value: object) -> int:
    """A position, version or number of events. No store counts further than ``LARGEST``, so all of them refuse the same values.

    Raises:
        ValueError: ``value`` is no such number.
    """
    if not isinstance(value, int) or not 0 <= value <= LARGEST:
        raise ValueError(f"{name}={value!r:.80}; expected an int from 0 to {LARGEST}")
    return value


def check_seconds(name: str, value: object, *, or_0: bool = False, at_most: float = inf) -> None:
    """Raise ``ValueError`` unless ``value`` is a number of seconds above 0, at most ``at_most``."""
    # NaN compares false with everything, so it is refused, too.
    if isinstance(value, (int, float)) and (value > 0 or (or_0 and value == 0)) and value <= at_most:
        return
    limit = "" if at_most == inf else f" and at most {at_most:g}"
    raise ValueError(f"{name}={value!r:.80}; expected seconds, {'0 or more' if or_0 else 'more than 0'}{limit}")


def are_delays(base: object, largest: object) -> bool:
    """Whether these are limits of delays in seconds, at most an hour, the first at most the second."""
    return isinstance(base, (int, float)) and isinstance(largest, (int, float)) and 0 <= base <= largest <= 3600


def one_of(name: str, value: object, *allowed: str) -> str:
    """A choice. Raises ``ValueError`` unless it is one of the allowed ones."""
    if value not in allowed:
        expected = " or ".join(f'"{each}"' for each in allowed)
        raise ValueError(f"{name}={value!r:.80}; expected {expected}")
    return str(value)
