"""Waiting for a condition instead of for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["wait_until"]

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout: float = 10, message: str = "", step: float = 0.02) -> T:
    """Poll ``condition`` until its result is true, and return that result.

    Raises:
        AssertionError: after ``timeout`` seconds, with the last result.
    """
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {message or condition}; last: {result!r}")
        time.sleep(step)
    return result
