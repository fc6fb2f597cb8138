"""Labels with an empty text, for backends that keep no tag without a value."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from eventcore.testing import ReceivedPoint


def with_empty_labels(points: Iterable[ReceivedPoint]) -> list[ReceivedPoint]:
    """Give each point the labels that other points of its metric have, with an empty text: all have the same labels.

    >>> [point.labels for point in with_empty_labels([ReceivedPoint(name="a", labels={"b": "1"}), ReceivedPoint(name="a")])]
    [{'b': '1'}, {'b': ''}]
    """
    points = list(points)
    names: dict[str, dict[str, str]] = {}
    for point in points:
        names.setdefault(point.name, {}).update(dict.fromkeys((name for name, text in point.labels.items() if text), ""))
    return [replace(point, labels=names[point.name] | {k: v for k, v in point.labels.items() if v}) for point in points]
