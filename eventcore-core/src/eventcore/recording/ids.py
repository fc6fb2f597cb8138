"""Trace, span and instance ids: 64 or 128 random bits, a few dozen nanoseconds each."""

from __future__ import annotations

import os
import random

from eventcore.ground import around_fork


class IdGenerator:
    """Random ids from a Mersenne Twister that the operating system seeds, once more in each forked child.

    ``random.Random`` is enough: ids must be unique, not secret.

    Attributes:
        bits: called with a number of bits, it returns an integer of that many random bits.
    """

    __slots__ = ("__weakref__", "bits")

    def __init__(self) -> None:
        self._seed()
        around_fork(self, after_in_child=IdGenerator._seed)

    def _seed(self) -> None:
        self.bits = random.Random(os.urandom(64)).getrandbits

    def hex32(self) -> str:
        """128 bits as 32 lower-case hexadecimal digits."""
        return self.bits(128).to_bytes(16, "big").hex()
