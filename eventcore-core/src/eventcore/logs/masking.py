"""Secrets in log records are replaced by ``***``: values of ``Secret``, fields whose name says so, and passwords in URLs."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, cast

from eventcore.exporting import Secret
from eventcore.ground import traceback_of
from eventcore.logs.fields import extra_fields, is_empty

MASK: Final = "***"
DEFAULT_NAMES: Final = (
    r"passw(or)?d|passphrase|secret|token|authorization|api[_-]?key|private[_-]?key|credential|cookie|session[_-]?id"
)
# user:password@ in a URL. Both patterns begin with literal text and have bounds, so that a long message takes linear time.
_URL_PASSWORD: Final = re.compile(r"(?P<before>://[^\s:/@]{0,256}:)[^\s/@]{1,1024}(?=@)")
# Values that are nested deeper are replaced: a log record is no place for them.
_DEEPEST: Final = 6


class Masker:
    """Replaces secrets in values.

    Args:
        names: a regular expression; a field whose name it finds is masked. Case does not count.
    """

    def __init__(self, names: str = DEFAULT_NAMES) -> None:
        try:
            self._names = re.compile(names, re.IGNORECASE)
            # name=value and name: value in a text
            before = rf"(?P<before>(?:{names})[\w.-]{{0,64}}['\"]?\s{{0,8}}[=:]\s{{0,8}}['\"]?)"
            pair = rf"{before}(?:bearer\s{{1,8}}|basic\s{{1,8}})?[^\s,;&'\"]+"
            self._pairs = re.compile(pair, re.IGNORECASE)
        except re.error as error:
            raise ValueError(
                f"mask={names!r} is no regular expression ({error}); expected one that finds names of fields"
            ) from error

    def field(self, name: object, value: Any, depth: int = 0) -> Any:
        """The value of a field, masked if its name or the value says so."""
        if isinstance(name, str) and self._names.search(name) and not is_empty(value):
            return MASK
        return self.value(value, depth)

    def value(self, value: Any, depth: int = 0) -> Any:
        """A value without secrets in it."""
        if isinstance(value, Secret):
            return MASK
        if type(value) is str:
            return self.text(value)
        if isinstance(value, Mapping):
            if depth >= _DEEPEST:
                return MASK
            pairs = cast(Mapping[Any, Any], value).items()
            return {name: self.field(name, each, depth + 1) for name, each in pairs}
        if type(value) in (list, tuple, set, frozenset):
            return MASK if depth >= _DEEPEST else type(value)(self.value(each, depth + 1) for each in value)
        return value

    def safely(self, value: Any, name: object = None) -> Any:
        """The masked value of a field, or ``***`` if a part of it raises whatever it is asked: for values that anybody made."""
        try:
            return self.field(name, value)
        except Exception:  # noqa: BLE001
            return MASK

    def text(self, text: str) -> str:
        """A text without passwords of URLs, and without the values of ``name=value`` pairs that are secret."""
        if "://" in text:
            text = _URL_PASSWORD.sub(rf"\g<before>{MASK}", text)
        if "=" in text or ":" in text:
            text = self._pairs.sub(rf"\g<before>{MASK}", text)
        return text


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
            record.exc_text = masker.safely(record.exc_text or _formatted(record.exc_info[1]))
        return True


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
