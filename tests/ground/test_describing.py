"""Texts of foreign exceptions and values: always a text, never an exception, never too long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from eventcore.ground import cut, describe_error, shown, text_of, traceback_of, type_name, without_values


def raises(*_: Any) -> NoReturn:
    raise SystemExit("from inside")


def returning(value: Any) -> Callable[..., Any]:
    return lambda *_: value


TEXT_LIKE: Any = type("TextLike", (str,), dict.fromkeys(["__len__", "__getitem__", "__str__", "isascii", "encode"], raises))


class EvilMeta(type):
    __name__ = __module__ = property(raises)


class EvilError(Exception, metaclass=EvilMeta):
    pass


HOSTILE: dict[str, type[BaseException]] = {
    "text raises": type("Hostile", (Exception,), {"__str__": raises}),
    "text and repr raise": type("Hostile", (Exception,), {"__str__": raises, "__repr__": raises}),
    "text is no text": type("Hostile", (Exception,), {"__str__": returning(17)}),
    "text is a subclass of str": type("Hostile", (Exception,), {"__str__": returning(TEXT_LIKE("x"))}),
    "text is 20 MB": type("Hostile", (Exception,), {"__str__": returning("é" * 20_000_000)}),
    "text is a lone surrogate": type("Hostile", (Exception,), {"__str__": returning("\udfff")}),
    "cause raises": type("Hostile", (Exception,), {"__cause__": property(raises)}),
    "context raises": type("Hostile", (Exception,), {"__context__": property(raises)}),
    "traceback raises": type("Hostile", (Exception,), {"__traceback__": property(raises)}),
    "notes raise": type("Hostile", (Exception,), {"__notes__": property(raises)}),
    "notes are no list": type("Hostile", (Exception,), {"__notes__": 3}),
    "every attribute raises": type("Hostile", (Exception,), {"__getattribute__": raises}),
    "class raises": type("Hostile", (Exception,), {"__class__": property(raises)}),
    "module is no text": type("Hostile", (Exception,), {"__module__": property(raises)}),
    "metaclass hides the name": EvilError,
    "base exception": type("Hostile", (BaseException,), {"__str__": raises}),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_every_exception_has_a_short_text_a_type_and_a_traceback_that_can_be_written(hostile: type[BaseException]) -> None:
    try:
        raise hostile("x")
    except BaseException as error:  # noqa: BLE001  # any of them
        texts = [
            describe_error(error),
            text_of(error),
            shown(error),
            type_name(type(error), qualified=True),
            traceback_of(error),
        ]
        chained = RuntimeError("outer")
        chained.__cause__ = error
        texts.append(traceback_of(chained))
        texts.append(traceback_of(BaseExceptionGroup("group", [error])))
    for text in texts:
        assert type(text) is str
        assert 0 < len(text.encode()) <= 3 * 4096
    assert "RuntimeError: outer" in texts[5]


def test_a_traceback_shows_frames_causes_notes_and_the_exceptions_of_a_group() -> None:
    def fail() -> None:
        try:
            raise KeyError("missing")
        except KeyError as error:
            raise ExceptionGroup("two", [ValueError("first"), OSError("second")]) from error

    with pytest.raises(ExceptionGroup) as caught:
        fail()
    caught.value.add_note("while it was tested")
    text = traceback_of(caught.value)
    for part in (
        "Traceback (most recent call last):",
        "in fail",
        "KeyError: 'missing'",
        "The above exception was the direct cause",
        "ExceptionGroup: two (2 sub-exceptions)",
        "while it was tested",
        "ValueError: first",
        "OSError: second",
    ):
        assert part in text
    assert text.index("KeyError") < text.index("ExceptionGroup: two")


def test_an_exception_that_caused_itself_and_a_long_chain_end() -> None:
    itself = ValueError("itself")
    itself.__cause__ = RuntimeError("between")
    itself.__cause__.__context__ = itself
    assert traceback_of(itself).count("ValueError: itself") == 1
    last = error = ValueError("0")
    for number in range(10_000):
        error.__context__ = ValueError(str(number))
        error = error.__context__
    assert traceback_of(last).count("ValueError") == 5


def test_a_long_traceback_keeps_its_end() -> None:
    def deep(left: int) -> None:
        if not left:
            raise ValueError("the bottom")
        deep(left - 1)

    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the text is looked at below
        deep(500)
    text = traceback_of(caught.value, limit=500)
    assert len(text) <= 500
    assert text.endswith("ValueError: the bottom\n")


def test_a_cut_text_says_so_and_counts_the_ellipsis() -> None:
    assert cut("x" * 10, 10) == "x" * 10
    assert cut("x" * 11, 10) == "x" * 9 + "…"
    assert cut("a\udfffb", 10) == "a?b"


@pytest.mark.parametrize(
    ("said", "described"),
    [
        ("refused\nDETAIL:  Failing row contains (1, secret).\nHINT: secret", "refused"),
        ("Failing row contains (1, secret", "Failing row contains (…)"),
        ("Key (a, b)=(secret, 1) already exists.", "Key (a, b)=(…) already exists."),
        ("refused\n[SQL: INSERT]\n[parameters: ('secret',)]", "refused"),
        ('syntax error\nLINE 1: INSERT INTO t VALUES (secret)', "syntax error"),
        ("[type=int, input_value='secret', input_type=str]", "[type=int, input_value=…, input_type=str]"),
        ("for query argument $1: secret (value out of int32 range)", "for query argument $1: … (value out of int32 range)"),
        ("no such flight: 'LH 400'", "no such flight: 'LH 400'"),
    ],
)  # fmt: skip
def test_what_a_database_or_a_validator_repeats_of_rows_and_input_is_left_out(said: str, described: str) -> None:
    error = RuntimeError(said)
    assert describe_error(error) == f"RuntimeError: {described}"
    assert text_of(error) == described
    assert f"RuntimeError: {described}\n" in traceback_of(error)


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_stand_in_of_a_foreign_exception_is_made_without_running_into_it(make: type[BaseException]) -> None:
    stand_in = without_values(make())
    assert type_name(type(stand_in)) == type_name(make)
    assert len(traceback_of(stand_in)) <= 4096


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("secret"), "'…'"),
        (ValueError("time data 'it's secret' does not match"), "time data '…' does not match"),
        (ValueError("a \"secret\" and one that can't be closed: 'x"), "a \"…\" and one that can't be closed: 'x"),
        (TypeError("unsupported operand type(s) for +: 'int' and 'str'"), "unsupported operand type(s) for +: 'int' and 'str'"),
        (FileNotFoundError(2, "No such file", "/var/shop"), "[Errno 2] No such file: '/var/shop'"),
    ],
)
def test_a_stand_in_quotes_names_and_no_values(error: BaseException, said: str) -> None:
    assert str(without_values(error)) == said


def test_a_stand_in_has_the_traceback_the_causes_and_the_group_of_its_exception() -> None:
    def inner() -> NoReturn:
        raise KeyError("secret".upper())

    try:
        try:
            inner()
        except KeyError as error:
            raise ExceptionGroup(f"of '{'secret'.upper()}'", [ValueError(f"'{'secret'.upper()}'")]) from error
    except ExceptionGroup as raised:
        text = traceback_of(without_values(raised))
    assert "SECRET" not in text
    assert ", in inner\n" in text
    assert "KeyError: '…'" in text
    assert "The above exception was the direct cause" in text
    assert "of '…' (1 sub-exception)\n  - ValueError: '…'" in text


def test_a_long_chain_of_causes_has_a_stand_in_of_bounded_length() -> None:
    error: BaseException = ValueError("end")
    for number in range(5000):
        following = ValueError(f"step {number}")
        following.__cause__, error = error, following
    assert traceback_of(without_values(error)).count("direct cause") == 4
