"""Hints in messages about names that do not exist."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The end of a message: the name that is nearest to a misspelt one, or nothing.

    >>> did_you_mean("prot", ["host", "port"]), did_you_mean("colour", ["host", "port"])
    ("; did you mean 'port'?", '')
    """
    import difflib  # takes a millisecond, and only a mistake needs it

    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
