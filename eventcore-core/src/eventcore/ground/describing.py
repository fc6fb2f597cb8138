"""Texts for messages: exceptions and values of an application or a plugin, made into bounded text without raising.

``str(error)`` runs code of the class's author. It may raise anything, return something other than a text, or return 20 MB.
The functions here never raise, cut what they return, and return texts that can be written as UTF-8.

**Values of rows.** A database repeats values in what it adds to its message (``DETAIL: Failing row contains (...)``), drivers
repeat arguments, validators their input. Of exceptions, this is left out everywhere. ``without_values`` leaves out quoted
values, too: for exceptions that come from work on an event.
"""

from __future__ import annotations

import contextlib
import logging
import re
import traceback
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final, cast

_MAX_TEXT: Final = 1000
_MAX_TRACEBACK: Final = 4096
_MAX_FRAMES: Final = 16
# Exceptions that caused one another, exceptions of a group and notes: so many are shown.
_MAX_CHAIN: Final = 5
# Names of a list of known ones.
_MAX_NAMES: Final = 20
# What databases, drivers and SQLAlchemy put on lines of their own after the message; it reaches to the end of the text.
_ADDITIONS: Final = re.compile(
    r"\n[ |+]*(?:(?:DETAIL|HINT|CONTEXT|WHERE|QUERY|STATEMENT|PARAMETERS|LINE \d{1,9}):|\[(?:SQL|parameters): )"
)
# What asyncpg says of an argument after its value.
_EXPECTED: Final = r"expected [\w. ]{1,80}, got [\w. ]{1,80}|'[\w.]{1,80}' object [\w ]{1,80}|value out of [\w ]{1,80}"
# The rest of a text that repeats a row (PostgreSQL), an argument (asyncpg) or an input (pydantic), and what stands for it.
_REPEATED: Final = tuple(
    (re.compile(pattern, re.DOTALL), shown)
    for pattern, shown in (
        (r"(Failing row contains \().*", r"\1…)"),
        (r"(Key \([^()]{0,500}\)=\().*?(?:(\) (?:already|is not|is still|conflicts))|$)", r"\1…\2"),
        (rf"(query argument \$\d{{1,5}}: ).*?( \((?:{_EXPECTED})\))?$", r"\1…\2"),
        (r"(input_value=).*?(?=, input_type=|$)", r"\1…"),
    )
)
# A value in quotes: not an apostrophe, and not the type in "'str' object".
_QUOTED: Final = re.compile(r"(?<!\w)(?P<quote>['\"])(?:(?!(?P=quote)(?!\w)).){1,2000}(?P=quote)(?!\w)(?! object\b)", re.DOTALL)
# What these say in quotes are names in code and files, and not values.
_OF_CODE: Final = (AttributeError, ImportError, NameError, OSError, TypeError)
# Classes of SQLSTATE whose messages quote values; the others quote names of columns, tables and constraints.
_OF_VALUES: Final = ("22", "P0")
_CAUSE: Final = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT: Final = "\nDuring handling of the above exception, another exception occurred:\n\n"


def describe_error(error: BaseException, limit: int = _MAX_TEXT) -> str:
    """The type and the text of an exception, at most ``limit`` characters, for messages and log records.

    >>> describe_error(ValueError("no such flight"))
    'ValueError: no such flight'
    >>> describe_error(ValueError("null value in column 'price'\\nDETAIL:  Failing row contains (ada, null)."))
    "ValueError: null value in column 'price'"
    """
    name = type_name(type(error))
    text = text_of(error, limit)
    return cut(f"{name}: {text}" if text else name, limit)


def text_of(value: object, limit: int = _MAX_TEXT) -> str:
    """``str(value)``, cut to ``limit`` characters; of an exception, without the values of rows. If it raises, the text says so.

    >>> text_of("x" * 20, limit=8)
    'xxxxxxx…'
    """
    try:
        text = cut(str(value), limit)
        return without_row_values(text) if isinstance(value, BaseException) else text
    except BaseException as error:  # noqa: BLE001  # a class of an application or a plugin may raise anything here
        return f"<{type_name(type(value))} whose text raises {type_name(type(error))}>"


def without_row_values(text: str) -> str:
    """The text of an exception without what databases, drivers and validators repeat of rows, arguments and input.

    >>> without_row_values("invalid input for query argument $1: {'card': 4111} (expected str, got dict)")
    'invalid input for query argument $1: … (expected str, got dict)'
    """
    if (found := _ADDITIONS.search(text)) is not None:
        text = text[: found.start()]
    for pattern, replacement in _REPEATED:
        text = pattern.sub(replacement, text)
    return text


def without_quoted(text: str) -> str:
    """The text without what it quotes.

    >>> without_quoted("invalid literal for int() with base 10: 'secret'; can't go on")
    "invalid literal for int() with base 10: '…'; can't go on"
    """
    return _QUOTED.sub(r"\g<quote>…\g<quote>", text)


def without_values(error: BaseException) -> BaseException:
    """A stand-in for an exception from work on an event, for logs, spans, and everything else that shows it to people.

    It has the same class name, traceback and causes. Its text, and those of its causes, say what was wrong, but not with which
    value: neither quoted values nor the values of rows.

    >>> raised = ValueError("could not convert string to float: 'secret'")
    >>> without_values(raised)
    ValueError("could not convert string to float: '…'")
    """
    return _stand_in(error, _MAX_CHAIN)


def _stand_in(error: BaseException, remaining: int) -> BaseException:
    text = _text_without_values(error)
    inside: list[BaseException] = []
    # Not `isinstance`: a foreign class may have a `__class__` of its own.
    if remaining and issubclass(type(error), BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        text = without_quoted(text_of(group.message))
        inside = [_stand_in(each, remaining - 1) for each in group.exceptions[:_MAX_CHAIN]]
    made = BaseExceptionGroup(text, inside) if inside else _with_text(type(error), text)
    made.__traceback__ = _traceback(error)
    origin, joint = _origin(error)
    made.__suppress_context__ = True
    if origin is not None and remaining:
        before = _stand_in(origin, remaining - 1)
        if joint is _CAUSE:
            made.__cause__ = before
        else:
            made.__context__, made.__suppress_context__ = before, False
    return made


def _traceback(error: BaseException) -> TracebackType | None:
    try:
        found = cast(object, error.__traceback__)
    except BaseException:  # noqa: BLE001  # an attribute of a foreign class
        return None
    return found if isinstance(found, TracebackType) else None


def _text_without_values(error: BaseException) -> str:
    text = text_of(error)
    try:
        state = getattr(error, "sqlstate", None)
        names = isinstance(state, str) and bool(state) and not state.startswith(_OF_VALUES)
        # Errors of eventcore have been written with the same care.
        own = type(error).__module__ == "eventcore.errors"
    except BaseException:  # noqa: BLE001  # an attribute of a foreign class
        names = own = False
    return text if names or own or issubclass(type(error), _OF_CODE) else without_quoted(text)


def _with_text(cls: type[BaseException], text: str) -> BaseException:
    """An exception whose class looks like ``cls``, and whose text is ``text``."""
    name, full = type_name(cls), type_name(cls, qualified=True)
    members = {"__module__": full.removesuffix(f".{name}") if full != name else "builtins", "__qualname__": name}
    # Not derived from `cls`: that may run code of its author.
    return cast(BaseException, type(name, (_StandIn,), members)(text))


class _StandIn(Exception):  # named like the class that it stands for
    """The base of the classes of stand-ins."""


def shown(value: object, limit: int = 80) -> str:
    """``repr(value)``, cut to ``limit`` characters, for messages about a value that does not fit.

    >>> shown("x" * 20, limit=8)
    "'xxxxxx…"
    """
    try:
        return cut(repr(value), limit)
    except BaseException as error:  # noqa: BLE001  # as in `text_of`
        return f"<{type_name(type(value))} whose repr raises {type_name(type(error))}>"


def type_name(cls: type, *, qualified: bool = False) -> str:
    """The name of a class; ``qualified`` adds the module, except for builtins.

    >>> type_name(KeyError), type_name(Iterator, qualified=True)
    ('KeyError', 'collections.abc.Iterator')
    """
    try:
        # Through `type`, because a metaclass may have a `__name__` of its own.
        name = str(type.__dict__["__qualname__" if qualified else "__name__"].__get__(cls))
        module = type.__dict__["__module__"].__get__(cls) if qualified else "builtins"
        return cut(name if module == "builtins" else f"{module}.{name}", _MAX_TEXT)
    except BaseException:  # noqa: BLE001  # `__module__` of a class may be anything
        return "unknown type"


def traceback_of(error: BaseException, limit: int = _MAX_TRACEBACK) -> str:
    """The traceback as Python prints it, for at most 5 exceptions of a chain and the 16 innermost frames of each.

    A longer text than ``limit`` keeps its end, where the exception itself stands.
    """
    try:
        text = "".join(_format(error))
    except BaseException as failure:  # noqa: BLE001  # for example a `__cause__` that raises
        text = f"{describe_error(error)} (its traceback cannot be shown: {type_name(type(failure))})\n"
    return encodable(text if len(text) <= limit else "…" + text[1 - limit :])


def cut(text: str, limit: int) -> str:
    """An exact ``str`` of at most ``limit`` characters that can be written as UTF-8; an ellipsis stands for what is cut off."""
    # Not `len(text)` and `text[:limit]`: a subclass may have changed both.
    if str.__len__(text) > limit:
        return encodable(str.__getitem__(text, slice(max(limit - 1, 0)))) + "…"
    return encodable(str.__str__(text))


def encodable(text: str) -> str:
    """The same text, with a question mark in place of each lone surrogate, which UTF-8 cannot write."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _format(error: BaseException) -> Iterator[str]:
    chain: list[tuple[BaseException, str]] = []
    seen: set[int] = set()
    following: BaseException | None = error
    joint = ""
    while following is not None and id(following) not in seen and len(chain) < _MAX_CHAIN:
        seen.add(id(following))
        chain.append((following, joint))
        following, joint = _origin(following)
    for each, joint in reversed(chain):
        if (found := _traceback(each)) is not None:
            yield "Traceback (most recent call last):\n"
            yield from traceback.format_list(traceback.extract_tb(found, limit=-_MAX_FRAMES))
        yield from _last_lines(each)
        yield joint


def _origin(error: BaseException) -> tuple[BaseException | None, str]:
    """The exception from which this one came, and the text between the two."""
    try:
        if isinstance(error.__cause__, BaseException):
            return error.__cause__, _CAUSE
        if isinstance(error.__context__, BaseException) and not error.__suppress_context__:
            return error.__context__, _CONTEXT
    except BaseException:  # noqa: BLE001, S110  # an attribute of a foreign class
        pass
    return None, ""


def _last_lines(error: BaseException) -> Iterator[str]:
    name = type_name(type(error), qualified=True)
    text = text_of(error)
    yield f"{name}: {text}\n" if text else f"{name}\n"
    try:
        notes: Any = getattr(error, "__notes__", ())
        inside = (
            cast("tuple[BaseException, ...]", cast(Any, error).exceptions)
            if issubclass(type(error), BaseExceptionGroup)
            else ()
        )
        lines = [text_of(note) for note in notes[:_MAX_CHAIN]]
        lines += [f"  - {describe_error(each)}" for each in inside[:_MAX_CHAIN]]
    except BaseException:  # noqa: BLE001  # as above
        return
    for line in lines:
        yield f"{line}\n"


class _NameInMessage(logging.Filter):
    """Puts the logger's name in front of a message that no handler takes.

    Where logging is not configured, Python writes only the message to standard error, which does not name the logger.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        name_in_message(record)
        return True


def name_in_message(record: logging.LogRecord) -> None:
    """Put the logger's name in front of the message, if no handler would show it."""
    if not logging.getLogger(record.name).hasHandlers():
        record.msg = f"{record.name}: {record.msg}"


def own_logger(name: str) -> logging.Logger:
    """The logger of that name, whose records say whose they are also where logging is not configured."""
    logger = logging.getLogger(name)
    if not any(isinstance(present, _NameInMessage) for present in logger.filters):
        logger.addFilter(_NameInMessage())
    return logger


def log_safely(logger: logging.Logger, level: int, message: str, traceback: str = "") -> None:
    """Log, also where a handler or a filter of the application raises, which is no fault of who logs."""
    with contextlib.suppress(Exception):
        logger.log(level, "%s\n%s" if traceback else "%s%s", message, traceback)


def is_success(error: SystemExit) -> bool:
    """Whether a program ends well by this error: with code 0, or none."""
    try:
        return error.code is None or (type(error.code) is int and error.code == 0)
    except BaseException:  # noqa: BLE001  # an attribute of a foreign class
        return False


def in_words(names: Sequence[str]) -> str:
    """The first 20 of several names, for a message.

    >>> in_words(["a", "b"]), in_words([])
    ('a, b', 'none')
    """
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return f"{', '.join(names[:_MAX_NAMES]) or 'none'}{more}"


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The end of a message: the name that is nearest to a misspelt one, or nothing.

    >>> did_you_mean("prot", ["host", "port"]), did_you_mean("colour", ["host", "port"])
    ("; did you mean 'port'?", '')
    """
    import difflib  # takes a millisecond, and only a mistake needs it

    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
