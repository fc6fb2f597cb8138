"""How many different streams were used lately: exact up to 10,000, above that an estimate in bounded memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from math import log
from typing import Final, TypeAlias, final

_EXACT: Final = 10_000
_MINUTES: Final = 5
# HyperLogLog: 2**12 registers have a standard error of 1.04 / 64 = 1.6 %.
_INDEX_BITS: Final = 12
_REGISTERS: Final = 1 << _INDEX_BITS
_HASH_BITS: Final = 64 - _INDEX_BITS
_ALPHA: Final = 0.7213 / (1 + 1.079 / _REGISTERS)

# Hashes of 64 bits stand for the streams: that two of 10,000 have the same one never happens, and Python's garbage collector
# visits no numbers.
_Minute: TypeAlias = "set[int] | bytearray"


@final
class ActiveStreams:
    """The number of different streams touched in the last 5 minutes (the current one and the four before it).

    Each minute is a set of up to 10,000 streams, then a HyperLogLog sketch of 4 KiB. Only the event loop of the store calls
    ``touch``; any thread may call ``count``.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._minutes: dict[int, _Minute] = {}

    def touch(self, streams: Iterable[str]) -> None:
        """Count these streams as used now."""
        now = int(self._clock() / 60)
        minute = self._minutes.get(now)
        if minute is None:
            minute = self._minutes[now] = set()
            for old in [key for key in self._minutes if key <= now - _MINUTES]:
                del self._minutes[old]
        if isinstance(minute, set):
            minute.update(map(hash, streams))
            if len(minute) > _EXACT:
                self._minutes[now] = _sketch(minute)
        else:
            _note(minute, map(hash, streams))

    def count(self) -> int:
        """How many there are."""
        now = int(self._clock() / 60)
        minutes = [minute for key, minute in self._minutes.copy().items() if now - _MINUTES < key <= now]
        sets = [minute.copy() for minute in minutes if isinstance(minute, set)]
        if len(sets) == len(minutes):
            together: set[int] = set[int]().union(*sets)
            if len(together) <= _EXACT:
                return len(together)
        sketches = [_sketch(minute.copy()) if isinstance(minute, set) else bytes(minute) for minute in minutes]
        return _estimate(bytes(map(max, *sketches)) if len(sketches) > 1 else bytes(sketches[0]))


def _sketch(hashes: Iterable[int]) -> bytearray:
    registers = bytearray(_REGISTERS)
    _note(registers, hashes)
    return registers


def _note(registers: bytearray, hashes: Iterable[int]) -> None:
    for found in hashes:
        bits = found & 0xFFFF_FFFF_FFFF_FFFF
        index = bits & (_REGISTERS - 1)
        # The position of the first 1 in the remaining bits, counted from 1.
        rank = _HASH_BITS - (bits >> _INDEX_BITS).bit_length() + 1
        if rank > registers[index]:
            registers[index] = rank


def _estimate(registers: bytes) -> int:
    harmonic = sum(registers.count(rank) * 2.0**-rank for rank in range(_HASH_BITS + 2))
    estimate = _ALPHA * _REGISTERS * _REGISTERS / harmonic
    empty = registers.count(0)
    if estimate <= 2.5 * _REGISTERS and empty:
        estimate = _REGISTERS * log(_REGISTERS / empty)
    return round(estimate)
