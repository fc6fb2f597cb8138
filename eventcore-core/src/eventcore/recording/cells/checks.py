"""Which values can be recorded: finite numbers, of any type."""

from __future__ import annotations

from math import inf, isfinite
from typing import Any, Final, NoReturn, cast

from eventcore.errors import InvalidMeasurement
from eventcore.ground import shown, type_name

# No float can be added to an int that is much larger.
TOO_LARGE: Final = 1 << 64


def refuse(value: object, expected: str) -> NoReturn:
    if type(value) not in (int, float):
        raise InvalidMeasurement(f"cannot record {shown(value)} of type {type_name(type(value))}: expected {expected}")
    raise InvalidMeasurement(f"cannot record {shown(value)}: expected {expected}")


def checked(value: object, least: float, expected: str) -> int | float:
    """A number of another type than ``int`` and ``float``, such as a ``Decimal`` or one of numpy, as one of these two."""
    number = plain_number(value) if not isinstance(value, str) else None
    if number is None or not max(least, -TOO_LARGE) <= number < inf:
        refuse(value, expected)
    return number


def plain_number(value: object) -> int | float | None:
    """A value as an exact ``int`` or ``float``; ``None`` when it is no finite number.

    Added as it is, a ``Decimal`` would make a cell that nobody can add a ``float`` to, and that no exporter can take.
    """
    if type(value) is int:
        return value
    try:
        number = value if type(value) is float else int(value) if isinstance(value, int) else float(cast(Any, value))
    except Exception:  # noqa: BLE001  # an object that took part in an addition and cannot be a number
        return None
    return number if isfinite(number) else None
