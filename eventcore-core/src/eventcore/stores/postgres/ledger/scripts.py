"""Finds statements in an SQL text that a handler may not send: those that end its transaction or change its session."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

# Most texts contain none of these words and need no closer look.
_SUSPICIOUS: Final = re.compile(
    r"\b(?:abort|begin|commit|deallocate|discard|end|listen|prepare|reset|rollback|set|start|unlisten)\b", re.IGNORECASE
)
# What PostgreSQL reads as one piece: a word, a string, a quoted name, a dollar-quoted string, a comment, or one character.
_PIECE: Final = re.compile(
    r"""(?P<skip>--[^\n]*|[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$|\s+)"""
    r"|(?P<comment>/\*)|(?P<word>\w[\w$]*)|(?P<end>;)|.",
    re.DOTALL,
)
_COMMENT: Final = re.compile(r"/\*|\*/")
_ENDING: Final = ("ABORT", "BEGIN", "COMMIT", "END", "START")
_OF_SESSION: Final = ("DEALLOCATE", "DISCARD", "LISTEN", "RESET", "UNLISTEN")
_MAX_CACHED: Final = 10_000


def forbidden(sql: str) -> str:
    """What a text would do that only the store may do, as words for an error; empty when it may be sent."""
    if not _SUSPICIOUS.search(sql):
        return ""
    return _cached(sql) if len(sql) <= _MAX_CACHED else _forbidden(sql)


def _forbidden(sql: str) -> str:
    is_body = False
    for words in _statements(sql):
        if is_body and words[0] == "END":
            # The end of the body of a function in standard SQL, whose statements are separated by semicolons, too.
            is_body = False
        elif found := _judged(words):
            return f"{found}: {' '.join(words[:6])}"
        else:
            is_body = is_body or (words[0] == "CREATE" and "BEGIN ATOMIC" in " ".join(words))
    return ""


_cached: Final = lru_cache(maxsize=512)(_forbidden)


def _judged(words: list[str]) -> str:
    first, *others = [word for word in words[:4] if word not in ("WORK", "TRANSACTION")] if len(words) > 1 else words
    second = others[0] if others else ""
    if words[:2] == ["PREPARE", "TRANSACTION"] or first in _ENDING or (first == "ROLLBACK" and second != "TO"):
        return "begin or end a transaction"
    if words[:2] == ["SET", "TRANSACTION"] or first in _OF_SESSION:
        return "change its session"
    if first == "SET" and second not in ("CONSTRAINTS", "LOCAL"):
        return "change its session; write SET LOCAL"
    return ""


def _statements(sql: str) -> Iterator[list[str]]:
    """The words of each statement that has any, in capitals, without strings, quoted names and comments."""
    words: list[str] = []
    position = 0
    while (piece := _PIECE.match(sql, position)) is not None:
        position = piece.end()
        if piece["word"]:
            words.append(piece["word"].upper())
        elif piece["comment"]:
            position = _after_comment(sql, position)
        elif piece["end"]:
            if words:
                yield words
            words = []
    if words:
        yield words


def _after_comment(sql: str, position: int) -> int:
    """Where a comment ends that began before ``position``; comments may contain comments."""
    depth = 1
    while depth and (found := _COMMENT.search(sql, position)) is not None:
        depth += 1 if found[0] == "/*" else -1
        position = found.end()
    return len(sql) if depth else position
