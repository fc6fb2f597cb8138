"""Patterns of stream ids, in a small language that every backend can translate to its own."""

from __future__ import annotations

import re
from typing import Final, final

import msgspec

from eventcore.errors import InvalidPattern
from eventcore.events.stream_id import NOT_IN_STREAM_IDS

_SYNTAX: Final = "'*' stands for any characters, '?' for one, '[a-z]' for one of a set, '[!a-z]' for one outside it"
_TOKEN: Final = re.compile(r"\*|\?|\[(!?)([^\[\]!^]+)\]|[^\[\]]", re.DOTALL)
_WILDCARDS: Final = {"*": ".*", "?": "."}
_MEMBER: Final = re.compile(r"([^-])-([^-])|([^-])", re.DOTALL)


@final
class StreamPattern(msgspec.Struct, frozen=True):
    """A case-sensitive pattern that matches whole stream ids.

    ``*`` stands for any number of characters, ``?`` for one, ``[0-9_]`` for one of a set, ``[!0-9]`` for one outside it.

    Attributes:
        text: the pattern as it was written.
        glob: the pattern for SQLite's operator ``glob``.
        regex: the pattern for ``re.Pattern.fullmatch``.

    >>> StreamPattern.parse("flight-[0-9]*").regex.fullmatch("flight-7-EWR") is not None
    True
    """

    text: str
    glob: str
    regex: re.Pattern[str]

    @classmethod
    def parse(cls, text: object) -> StreamPattern:
        """Parse a pattern of 1 to 255 characters.

        Raises:
            InvalidPattern: a bracket is not closed, a set is empty, a range runs backwards, or there is a character that no
                stream id has.
        """
        if not isinstance(text, str) or not 0 < len(text) <= 255:
            raise InvalidPattern(f"pattern {text!r:.80}: expected a str of 1 to 255 characters, where {_SYNTAX}")
        glob: list[str] = []
        regex: list[str] = []
        at = 0
        while at < len(text):
            token = _TOKEN.match(text, at)
            if token is None:
                raise InvalidPattern(f"pattern {text!r}: cannot read {text[at:]!r} at index {at}; {_SYNTAX}")
            at = token.end()
            if token[2] is None:
                if NOT_IN_STREAM_IDS.match(token.group()) and token.group() not in _WILDCARDS:
                    raise InvalidPattern(
                        f"pattern {text!r}: no stream id has {token.group()!r} (at index {token.start()}), so it would match "
                        f"none; {_SYNTAX}"
                    )
                glob.append(token.group())
                regex.append(_WILDCARDS.get(token.group()) or re.escape(token.group()))
            else:
                negated = "^" if token[1] else ""
                glob.append(f"[{negated}{token[2]}]")
                regex.append(f"[{negated}{_members(text, token[2])}]")
        return cls(text, "".join(glob), re.compile("".join(regex), re.DOTALL))


def _members(pattern: str, members: str) -> str:
    """Translate the members of a set to the syntax of ``re``, in which more characters are special."""
    parts: list[str] = []
    at = 0
    while at < len(members):
        member = _MEMBER.match(members, at)
        if member is None or (member[1] and member[1] > member[2]):
            raise InvalidPattern(f"pattern {pattern!r}: the set [{members}] has no valid range at {members[at:]!r}; {_SYNTAX}")
        at = member.end()
        parts.append(f"{re.escape(member[1])}-{re.escape(member[2])}" if member[1] else re.escape(member[3]))
    return "".join(parts)
