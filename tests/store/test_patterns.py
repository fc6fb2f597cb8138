from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventcore.errors import InvalidPattern
from eventcore.stores import StreamPattern

# Few different characters, so that patterns often match; among them those that are special somewhere.
characters = st.sampled_from("abAB09-_.:%^$\\(){}|+é&~#!")
in_sets = st.sampled_from("abAB09_.:%$\\(){}|+é&~#")
ranges = st.tuples(in_sets, in_sets).map(sorted).map("-".join)
sets = st.tuples(st.sampled_from(["", "!"]), st.lists(in_sets | ranges, min_size=1, max_size=3).map("".join)).map(
    lambda parts: f"[{parts[0]}{parts[1]}]"
)
patterns = st.lists(characters | st.sampled_from("*?") | sets, min_size=1, max_size=8).map("".join)
streams = st.text(characters, min_size=1, max_size=8)


@given(patterns, streams)
def test_memory_and_sqlite_agree_on_what_a_pattern_matches(pattern: str, stream: str) -> None:
    parsed = StreamPattern.parse(pattern)
    database = sqlite3.connect(":memory:")
    [globbed] = database.execute("SELECT ? GLOB ?", (stream, parsed.glob)).fetchone()
    database.close()
    assert bool(globbed) == (parsed.regex.fullmatch(stream) is not None)


@given(st.text(characters, min_size=1, max_size=20))
def test_a_pattern_without_wildcards_matches_itself_only(text: str) -> None:
    regex = StreamPattern.parse(text).regex
    assert regex.fullmatch(text)
    assert not regex.fullmatch(text + "a")
    assert not regex.fullmatch(text.swapcase()) or text.swapcase() == text


@pytest.mark.parametrize("pattern", ["", "[", "a]", "[]", "[!]", "[b-a]", "[a-]", "[-a]", "[a", "[[a]", "x" * 256, 7, None])
def test_what_is_no_pattern_is_refused_with_the_syntax(pattern: Any) -> None:
    with pytest.raises(InvalidPattern, match="stands for"):
        StreamPattern.parse(pattern)
