"""Wait for a condition, not for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout: float = 10, message: str = "", step: float = 0.02) -> T:
    """Poll ``condition`` every ``step`` seconds until its result is true, and return the result.

    Raises:
        AssertionError: the result was not true within ``timeout`` seconds; the message has the last result.
    """
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {message or condition}; last: {result!r}")
        time.sleep(step)
    return result
