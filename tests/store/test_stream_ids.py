from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventcore import StreamId
from eventcore.errors import InvalidStreamId


@given(st.text(min_size=1, max_size=300))
def test_a_text_is_a_stream_id_exactly_when_its_characters_and_length_fit(text: str) -> None:
    fits = len(text) <= 255 and not any(
        character.isspace()
        or character in "*?[]"
        or ord(character) < 0x20
        or 0x7F <= ord(character) < 0xA0
        or 0xD800 <= ord(character) < 0xE000
        for character in text
    )
    try:
        stream = StreamId(text)
    except InvalidStreamId:
        assert not fits
    else:
        assert fits
        assert stream == text
        assert hash(stream) == hash(text)
        assert pickle.loads(pickle.dumps(stream)) == copy.copy(stream) == stream


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "a stream id is empty; expected 1 to 255 characters"),
        ("a b", "has ' ' at index 1"),
        ("x" * 256, "256"),
        (7, "not int"),
    ],
)
def test_the_refusal_says_what_was_wrong(text: Any, problem: str) -> None:
    with pytest.raises(InvalidStreamId, match=problem):
        StreamId(text)


def test_a_stream_id_of_a_stream_id_is_itself() -> None:
    stream = StreamId("a")
    assert StreamId(stream) is stream
