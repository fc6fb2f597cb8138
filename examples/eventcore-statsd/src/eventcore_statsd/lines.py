"""Points as lines of the StatsD protocol: ``name:1|c``, and with the tags of DogStatsD ``name:1|c|#country:FR``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import isfinite
from typing import final

import msgspec

from eventcore.exporting import HistogramPoint, Labels

_UNFIT = re.compile(r"[|,#\r\n]")
_UNFIT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")


@final
class Format(msgspec.Struct, frozen=True):
    """How names and labels are written.

    Attributes:
        prefix: what stands before each name.
        has_tags: whether labels are tags, as DogStatsD has them; else their values are appended to the name.
        tags: further tags.
    """

    prefix: str
    has_tags: bool
    tags: tuple[tuple[str, str], ...] = ()

    def series(self, name: str, labels: Labels) -> str:
        """Name and tags, with a place for value and type between them.

        >>> Format("shop.", True).series("orders", (("country", "FR"),)), Format("", False).series("orders", (("c", "FR"),))
        ('shop.orders:%s|%s|#country:FR', 'orders.FR:%s|%s')
        """
        name = f"{self.prefix}{name}".replace("%", "%%")
        if not self.has_tags:
            parts = [_UNFIT_IN_NAMES.sub("_", str(value)) or "_" for _, value in labels]
            return f"{'.'.join([name, *parts])}:%s|%s"
        # A tag without a value is left out: servers drop it, or the whole line.
        pairs = [(key, tag_text(str(value))) for key, value in (*self.tags, *labels)]
        tags = ",".join(f"{key}:{text}" for key, text in pairs if text).replace("%", "%%")
        return f"{name}:%s|%s{f'|#{tags}' if tags else ''}"

    def count(self, series: str, added: float) -> str:
        """The line of a counter."""
        return series % (number(added), "c")

    def gauge(self, name: str, labels: Labels, value: float) -> str:
        """The line of a gauge; two for a negative value, because a sign in front means a difference."""
        series = self.series(name, labels)
        line = series % (number(value), "g")
        return f"{series % ('0', 'g')}\n{line}" if value < 0 else line

    def histogram(
        self, name: str, labels: Labels, point: HistogramPoint, boundaries: Sequence[float]
    ) -> Iterator[tuple[str, float]]:
        """The counters of a histogram, and what each got."""
        yield self.series(f"{name}.count", labels), point.count
        if isfinite(point.sum):
            yield self.series(f"{name}.sum", labels), point.sum
        if self.has_tags and point.buckets:
            for bound, count in zip((*boundaries, "inf"), point.buckets, strict=True):
                if count:
                    yield self.series(f"{name}.bucket", (*labels, ("le", str(bound)))), count


def tag_text(text: str) -> str:
    r"""The value of a tag: what separates tags and lines becomes an underscore.

    >>> tag_text("a,b|c\n")
    'a_b_c_'
    """
    return _UNFIT.sub("_", text)


def number(value: float) -> str:
    """A number as the protocol writes it.

    >>> number(3), number(0.1), number(1e21)
    ('3', '0.1', '1e+21')
    """
    return repr(value)
