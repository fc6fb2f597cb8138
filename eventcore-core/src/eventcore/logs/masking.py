"""Secrets in log records are replaced by ``***``: values of ``Secret``, fields whose name says so, and passwords in URLs.

So are the values of rows that databases, drivers and validators repeat in the texts of their exceptions.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, Final, cast

from eventcore.exporting import Secret
from eventcore.ground import dataclass_fields, traceback_of
from eventcore.logs.fields import extra_fields, is_empty

MASK: Final = "***"
DEFAULT_NAMES: Final = (
    r"passw(or)?d|passphrase|secret|token|authorization|api[_-]?key|private[_-]?key|credential|cookie|session[_-]?id"
)
# user:password@ in a URL. All patterns begin with literal text and have bounds, so that a long message takes linear time.
_URL_PASSWORD: Final = re.compile(r"(?P<before>://[^\s:/@]{0,256}:)[^\s/]{1,1024}(?=@)")
# Headers of HTTP: what follows has parts of its own, such as a=b; c=d.
_HEADERS: Final = ("cookie", "authorization")
# Of a value: what may stand before its quote, as in b'...' or SecretStr('...'); up to its closing quote; or one word.
_VALUE: Final = (
    r"(?:(?:[bru]{1,2}|[\w.]{0,64}[(\[{]{1,4})?(?P<quote>\\{0,4}['\"])(?:(?!(?P=quote))(?:\\.|[^\n]))*"
    r"|(?:(?:bearer|basic)\s{1,8})?[^\s,;&'\"]+)"
)
# What a database adds to its message, and what drivers and validators repeat: it has values of rows and of input in it.
_ADDITION: Final = r"[ |+]*(?:DETAIL|HINT|CONTEXT|WHERE|QUERY|STATEMENT|PARAMETERS):"
_ROW_VALUES: Final = (
    re.compile(
        rf"(?P<before>\n{_ADDITION}).*?(?=\n{_ADDITION}|\n\n(?:The above exception|During handling)|\n[ |]*\+-|\Z)", re.DOTALL
    ),
    re.compile(r"(?P<before>\[parameters: )[^\n]*"),
    re.compile(r"(?P<before>Failing row contains \()[^\n]*"),
    re.compile(r"(?P<before>Key \([^()\n]{0,500}\)=\()(?!\*)[^\n]*"),
    re.compile(r"(?P<before>query argument \$\d{1,5}: )(?!…)[^\n]*"),
    re.compile(r"(?P<before>input_value=)(?:(?!, input_type=)[^\n])*"),
)
_CONTAINERS: Final = (dict, list, tuple)
_NUMBERS: Final = (bool, int, float)
# Values that are nested deeper, and those after so many parts, are replaced: a log record is no place for them.
_DEEPEST: Final = 6
_MAX_PARTS: Final = 1000
# Characters of a text that are masked; the rest is cut off.
_MAX_TEXT: Final = 64 * 1024
_LONGEST_URL: Final = 2048


class Masker:
    """Replaces secrets in values.

    Args:
        names: a regular expression; a field whose name it finds is masked. Case does not count.
    """

    def __init__(self, names: str = DEFAULT_NAMES) -> None:
        try:
            self._names = re.compile(names, re.IGNORECASE)
            # name=value and name: value in a text
            before = rf"(?P<before>(?:{names})[\w.-]{{0,64}}(?:\\{{0,4}}['\"])?\s{{0,8}}[=:]\s{{0,8}})"
            self._pairs = re.compile(before + _VALUE, re.IGNORECASE)
        except re.error as error:
            raise ValueError(
                f"mask={names!r} is no regular expression ({error}); expected one that finds names of fields"
            ) from error
        headers = "|".join(each for each in _HEADERS if self._names.search(each))
        self._headers = (
            re.compile(rf"(?P<before>(?:{headers})[ \t]{{0,8}}:[ \t]{{0,8}})[^\s'\"\\][^\r\n]*", re.IGNORECASE)
            if headers
            else None
        )

    def field(self, name: object, value: Any) -> Any:
        """The value of a field, masked if its name or the value says so."""
        return self._field(name, value, _Walk())

    def safely(self, value: Any, name: object = None) -> Any:
        """The masked value of a field, or ``***`` if a part of it raises whatever it is asked: for values that anybody made."""
        try:
            return self.field(name, value)
        except Exception:  # noqa: BLE001
            return MASK

    def text(self, text: str) -> str:
        """A text without passwords of URLs, and without the values of ``name=value`` pairs that are secret."""
        if len(text) > _MAX_TEXT:
            # Not within a word: its end may be what shows that it has a secret in it.
            end = max(text.rfind(" ", 0, _MAX_TEXT), _MAX_TEXT - _LONGEST_URL)
            text = f"{text[:end]}… ({len(text) - end} characters were cut off)"
        if "://" in text:
            text = _URL_PASSWORD.sub(rf"\g<before>{MASK}", text)
        if "=" in text or ":" in text:
            if self._headers is not None:
                text = self._headers.sub(rf"\g<before>{MASK}", text)
            text = self._pairs.sub(rf"\g<before>\g<quote>{MASK}", text)
        if "\n" in text or "=" in text or "(" in text or "$" in text:
            for pattern in _ROW_VALUES:
                text = pattern.sub(rf"\g<before> {MASK}", text)
        return text

    def _field(self, name: object, value: Any, walk: _Walk) -> Any:
        walk.parts += 1
        if isinstance(name, str) and self._names.search(name) and not is_empty(value):
            return MASK
        if type(value) is str:
            return self.text(value)
        if value is None or type(value) in _NUMBERS:
            return value
        if isinstance(value, Secret) or len(walk.inside) >= _DEEPEST or id(value) in walk.inside:
            return MASK
        walk.inside.add(id(value))
        try:
            return self._inside(value, type(value), walk)
        finally:
            walk.inside.discard(id(value))

    def _inside(self, value: Any, cls: Any, walk: _Walk) -> Any:
        """A value that may have parts."""
        if (named := _named_parts(value, cls)) is not None:
            found: dict[Any, Any] = {}
            for name, each in named:
                if walk.parts >= _MAX_PARTS:
                    found["…"] = MASK
                    break
                found[name] = self._field(name, each, walk)
            return found
        if cls in (list, tuple, set, frozenset, deque):
            parts: list[Any] = []
            for each in cast(Iterable[Any], value):
                if walk.parts >= _MAX_PARTS:
                    parts.append(MASK)
                    break
                parts.append(self._field(None, each, walk))
            return parts if cls is list else tuple(parts)
        # What a formatter shows of any other value is one of its texts. Of a dataclass, some would show the hidden fields.
        text, other = str(value), repr(value)
        masked = self.text(text)
        is_clean = masked == text and (other == text or self.text(other) == other)
        return value if is_clean and dataclass_fields(cls) is None else masked


class _Walk:
    """How far one value has been walked through: it may contain itself, or each of its parts several others.

    Attributes:
        inside: the ids of the values whose parts are being looked at.
        parts: how many were looked at.
    """

    __slots__ = ("inside", "parts")

    def __init__(self) -> None:
        self.inside: set[int] = set()
        self.parts = 0


def _named_parts(value: Any, cls: Any) -> Iterable[tuple[Any, Any]] | None:
    """The fields of a mapping, a dataclass or a named tuple; ``None`` for any other value."""
    if issubclass(cls, Mapping):
        pairs: Iterable[tuple[Any, Any]] = value.items()
        return pairs
    names: Any = getattr(cls, "_fields", None)
    if names is not None and tuple in cls.__mro__:
        return zip(names, value, strict=False)
    # One with a text of its own shows by that what may be shown.
    fields = dataclass_fields(cls)
    if fields is not None and hasattr(cls.__repr__, "__wrapped__"):
        return [(each.name, getattr(value, each.name, None)) for each in fields if each.repr]
    return None


class MaskFilter(logging.Filter):
    """Masks secrets in the message, in its arguments and in the fields of each record. Add it to handlers.

    Args:
        names: a regular expression that finds the names of secret fields.

    >>> import logging, sys
    >>> handler = logging.StreamHandler(sys.stdout)
    >>> handler.addFilter(MaskFilter())
    >>> logger = logging.Logger("shop")
    >>> logger.addHandler(handler)
    >>> logger.info("connecting to %s with token=%s", "postgresql://shop:s3cr3t@db/shop", "abc")
    connecting to postgresql://shop:***@db/shop with token=***
    """

    def __init__(self, names: str = DEFAULT_NAMES) -> None:
        super().__init__()
        self._masker = Masker(names)

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask the record; every record passes. Whatever a log call was given, this raises nothing into the application."""
        masker = self._masker
        # In these, names of fields are known that their text does not show.
        if type(record.msg) in _CONTAINERS:
            record.msg = masker.safely(record.msg)
        record.args = self._without_containers(record.args, type(record.args))
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001  # arguments that do not fit the message: the handler reports this, and shows them
            record.msg, record.args = masker.safely(record.msg), masker.safely(record.args)
        else:
            if (masked := masker.safely(message)) != message:
                record.msg, record.args = masked, None
        for name, value in extra_fields(record).items():
            record.__dict__[name] = masker.safely(value, name)
        if record.exc_info and record.exc_info[1] is not None:
            # A handler before this one may have formatted it already.
            record.exc_text = masker.safely((record.exc_text or _formatted(record.exc_info[1]))[-_MAX_TEXT:])
        if record.stack_info:
            record.stack_info = masker.safely(record.stack_info)
        return True

    def _without_containers(self, arguments: Any, kind: Any) -> Any:
        if kind is tuple:
            return tuple(self._masker.safely(each) if type(each) in _CONTAINERS else each for each in arguments)
        if kind is dict:
            # A number stays one, for `%(name)d`.
            pairs: Iterable[tuple[Any, Any]] = arguments.items()
            return {name: each if type(each) in _NUMBERS else self._masker.safely(each, name) for name, each in pairs}
        return arguments


def _formatted(error: BaseException) -> str:
    try:
        return logging.Formatter().formatException((type(error), error, error.__traceback__))
    except Exception:  # noqa: BLE001  # an attribute of a foreign class
        return traceback_of(error)


def mask_secrets(
    logger: Any,  # noqa: ARG001  # structlog passes three arguments
    method_name: str,  # noqa: ARG001
    event_dict: MutableMapping[str, Any],
) -> MutableMapping[str, Any]:
    """Mask secrets in an event of structlog; a processor.

    >>> mask_secrets(None, "info", {"event": "signed in", "password": "abc", "user": "ada"})
    {'event': 'signed in', 'password': '***', 'user': 'ada'}
    """
    masker = Masker()
    for name, value in list(event_dict.items()):
        event_dict[name] = masker.safely(value, name)
    return event_dict
