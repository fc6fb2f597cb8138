"""Exponential backoff with jitter: the one formula for every wait before a retry."""

from __future__ import annotations

import random
from typing import Final

# Every limit reaches its longest value long before this exponent. A larger power of two could overflow a float.
_MAX_EXPONENT: Final = 60


def backoff(retry: int, first: float, longest: float, *, at_least: float = 0.5) -> float:
    """Return the seconds to wait before a retry: a random part of a limit that doubles with each retry.

    Jitter keeps clients that failed together from retrying together. ``at_least=0`` (full jitter) spreads many competing
    clients best. The default waits at least half of the limit, so that a single client does not hammer a server that is down.

    Args:
        retry: the number of the retry, from 1.
        first: the limit before the first retry, in seconds.
        longest: the largest limit, in seconds.
        at_least: the smallest part of the limit to wait, from 0 to 1.

    >>> 0.5 <= backoff(1, first=1.0, longest=30.0) <= 1.0
    True
    >>> backoff(100, first=1.0, longest=30.0, at_least=1.0)
    30.0
    """
    limit = min(longest, first * 2.0 ** min(retry - 1, _MAX_EXPONENT))
    return limit * random.uniform(at_least, 1.0)
