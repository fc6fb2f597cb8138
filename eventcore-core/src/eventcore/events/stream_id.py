"""Stream ids: validated names of streams."""

from __future__ import annotations

import re
from typing import Final, final

from eventcore.errors import InvalidStreamId

_MAX_LENGTH: Final = 255
# White space, control characters and surrogates cannot be stored or shown everywhere; the rest are the wildcards of patterns.
NOT_IN_STREAM_IDS: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff*?\[\]]")
_search: Final = NOT_IN_STREAM_IDS.search
_new: Final = str.__new__


@final
class StreamId(str):
    """The name of one stream: a ``str`` of 1 to 255 characters without white space, control characters or ``* ? [ ]``.

    Raises:
        InvalidStreamId: the text is not a valid name.

    >>> StreamId("account-7")
    StreamId('account-7')
    >>> StreamId("account 7")
    Traceback (most recent call last):
    eventcore.errors.InvalidStreamId: stream id 'account 7' has ' ' at index 7; allowed are 1 to 255 characters without \
white space, control characters or any of * ? [ ]
    """

    __slots__ = ()

    def __new__(cls, text: str) -> StreamId:
        if type(text) is str and 0 < len(text) <= _MAX_LENGTH and _search(text) is None:
            # Nearly all calls, and at least one for each command.
            return _new(cls, text)
        if type(text) is cls:
            return text
        if not isinstance(text, str):
            raise InvalidStreamId(f"a stream id is a str, not {type(text).__name__}")
        if not text:
            raise InvalidStreamId(f"a stream id is empty; expected 1 to {_MAX_LENGTH} characters, such as 'account-7'")
        if len(text) > _MAX_LENGTH:
            raise InvalidStreamId(f"stream id {text[:40]!r}… has {len(text)} characters; allowed are 1 to {_MAX_LENGTH}")
        if found := NOT_IN_STREAM_IDS.search(text):
            raise InvalidStreamId(
                f"stream id {text!r} has {found.group()!r} at index {found.start()}; allowed are 1 to {_MAX_LENGTH} characters "
                "without white space, control characters or any of * ? [ ]"
            )
        return super().__new__(cls, text)

    def __repr__(self) -> str:
        return f"StreamId({str.__repr__(self)})"
