"""Reads the standard ``OTEL_*`` variables as the OpenTelemetry specification defines them.

Deployments set these variables for all programs at once, and for the SDK first of all. A value that
cannot be followed is therefore a warning that names the variable, and counts as not set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal, NamedTuple, TypeAlias, TypeVar
from urllib.parse import unquote

Signal: TypeAlias = Literal["metrics", "traces"]

_LOWEST_MILLISECONDS: Final = 100.0
# In place of no limit, which the specification allows: core's pipeline takes at most an hour.
_NO_LIMIT: Final = 3600.0
_SHORTEST_DELAY: Final = 0.001
_T = TypeVar("_T")


class Variable(NamedTuple):
    """An environment variable that is set.

    Attributes:
        name: its name.
        text: its value, without white space around it.
        secret: whether messages must not contain the value.
    """

    name: str
    text: str
    secret: bool = False

    def one_of(self, *values: str) -> str:
        """The value in lower case, which is one of ``values``."""
        if (text := self.text.lower()) not in values:
            raise self.fault(f"{', '.join(values[:-1])} or {values[-1]}")
        return text

    def boolean(self) -> bool:
        """Whether the value is ``true``, in upper or lower case."""
        return self.one_of("true", "false") == "true"

    def attempt_seconds(self) -> float:
        """The value of a timeout of the OTLP exporter, in seconds.

        The specification says milliseconds, but OpenTelemetry's Python SDK reads the same variables
        as seconds. A timeout below 100 ms makes no sense, nor does one of 100 seconds or more. A
        number below 100 is therefore read as seconds and any other number as milliseconds, so that
        deployments of either kind get the timeout that they mean. 0 means no limit.
        """
        number = self._number()
        return min((number if number < _LOWEST_MILLISECONDS else number / 1000) or _NO_LIMIT, _NO_LIMIT)

    def timeout(self) -> float:
        """The value of a timeout of the SDK, in seconds; 0 means no limit."""
        return min(self._number() / 1000 or _NO_LIMIT, _NO_LIMIT)

    def delay(self) -> float:
        """The value of a delay of the SDK, in seconds; 0 means at once."""
        return self._up_to_an_hour(max(self._number() / 1000, _SHORTEST_DELAY))

    def interval(self) -> float:
        """The value of an interval of the SDK, in seconds, more than 0."""
        if not (number := self._number()):
            raise self.fault("milliseconds, more than 0")
        return self._up_to_an_hour(number / 1000)

    def number(self) -> int:
        """The value of a whole number, more than 0."""
        if not (self.text.isascii() and self.text.isdigit() and len(self.text) <= 18 and int(self.text)):
            raise self.fault("a whole number, more than 0")
        return int(self.text)

    def pairs(self) -> Iterator[tuple[int, str, str]]:
        """The well-formed pairs of ``key=value,key=value``, percent-decoded, each with its position."""
        for position, item in enumerate(self.text.split(","), 1):
            key, equals, value = item.partition("=")
            if equals and key.strip():
                try:
                    yield position, unquote(key.strip(), errors="strict"), unquote(value.strip(), errors="strict")
                except UnicodeDecodeError:
                    yield position, "", ""
            elif item.strip():
                yield position, "", ""

    def fault(self, expected: str) -> ValueError:
        """The error for a value that is not as ``expected``."""
        return ValueError(f"{self}: expected {expected}")

    def __str__(self) -> str:
        return self.name if self.secret else f"{self.name}={self.text[:200]!r}"

    def _number(self) -> float:
        try:
            number = float(self.text)
        except ValueError:
            number = -1.0
        if not 0 <= number < float("inf"):
            raise self.fault("milliseconds, 0 or more")
        return number

    def _up_to_an_hour(self, seconds: float) -> float:
        if seconds > 3600:
            raise self.fault("milliseconds, at most one hour")
        return seconds


class Environment:
    """Looks settings up in environment variables: first the variable of one signal, then the variable for all signals.

    A variable that is empty counts as not set, and so does one whose value cannot be read.

    Args:
        variables: the environment.

    Attributes:
        warnings: one text for each variable that is not followed.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._warnings: dict[str, str] = {}

    @property
    def warnings(self) -> tuple[str, ...]:
        """One text for each variable that is not followed, in the order in which they were found."""
        return tuple(self._warnings.values())

    def exporter(self, signal: Signal, option: str, read: Callable[[Variable], _T], *, secret: bool = False) -> _T | None:
        """``OTEL_EXPORTER_OTLP_<SIGNAL>_<OPTION>``, else ``OTEL_EXPORTER_OTLP_<OPTION>``, as ``read`` reads it."""
        for name in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_{option}", f"OTEL_EXPORTER_OTLP_{option}"):
            if (found := self.read(name, read, secret=secret)) is not None:
                return found
        return None

    def read(self, name: str, read: Callable[[Variable], _T], *, secret: bool = False) -> _T | None:
        """One variable, as ``read`` reads it; ``None`` when it is not set, or ``read`` raises ``ValueError``."""
        if not (text := self._variables.get(name, "").strip()):
            return None
        variable = Variable(name, text, secret)
        try:
            return read(variable)
        except ValueError as error:
            self.warn(variable, f"{error}; it is ignored")
            return None

    def warn(self, variable: Variable, text: str) -> None:
        """Note once that a variable is not followed."""
        self._warnings.setdefault(variable.name, text)
