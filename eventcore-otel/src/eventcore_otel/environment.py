"""Reads the standard ``OTEL_*`` variables as the OpenTelemetry specification defines them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple, TypeAlias
from urllib.parse import unquote

Signal: TypeAlias = Literal["metrics", "traces"]

_LOWEST_MILLISECONDS: Final = 100.0


class Variable(NamedTuple):
    """An environment variable that is set.

    Attributes:
        name: its name.
        text: its value, without white space around it.
        secret: whether error messages must not contain the value.
    """

    name: str
    text: str
    secret: bool = False

    def boolean(self) -> bool:
        """The value of ``true`` or ``false``, in upper or lower case."""
        values = {"true": True, "false": False}
        try:
            return values[self.text.lower()]
        except KeyError:
            raise self.fault("true or false") from None

    def seconds(self) -> float:
        """The value of a timeout, in seconds.

        The specification says milliseconds, but OpenTelemetry's Python SDK reads the same variables
        as seconds. A timeout below 100 ms makes no sense, nor does one of 100 seconds or more. A
        number below 100 is therefore read as seconds and any other number as milliseconds, so that
        deployments of either kind get the timeout that they mean.
        """
        try:
            number = float(self.text)
        except ValueError:
            number = 0.0
        if not 0 < number < float("inf"):
            raise self.fault("milliseconds, more than 0")
        return number if number < _LOWEST_MILLISECONDS else number / 1000

    def pairs(self) -> dict[str, str]:
        """The pairs of ``key=value,key=value``; keys and values are percent-encoded."""
        pairs: dict[str, str] = {}
        for position, item in enumerate(self.text.split(","), 1):
            if not item.strip():
                continue
            key, equals, value = item.partition("=")
            if not equals or not key.strip():
                raise self.fault(f"key=value pairs separated by commas (item {position} is none)")
            try:
                pairs[unquote(key.strip(), errors="strict")] = unquote(value.strip(), errors="strict")
            except UnicodeDecodeError as error:
                raise self.fault(f"percent-encoded UTF-8 (item {position} is not)") from error
        return pairs

    def fault(self, expected: str) -> ValueError:
        """The error for a value that is not as ``expected``."""
        return ValueError(
            f"{self.name}: expected {expected}" if self.secret else f"{self.name}={self.text!r}: expected {expected}"
        )


class Environment:
    """Looks settings up in environment variables: first the variable of one signal, then the variable for all signals."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def exporter(self, signal: Signal, option: str, *, secret: bool = False) -> Variable | None:
        """``OTEL_EXPORTER_OTLP_<SIGNAL>_<OPTION>``, else ``OTEL_EXPORTER_OTLP_<OPTION>``; an empty one counts as not set."""
        return self._find(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{option}", secret) or self._find(
            f"OTEL_EXPORTER_OTLP_{option}", secret
        )

    def general(self, name: str) -> Variable | None:
        """A variable that is not specific to OTLP exporters."""
        return self._find(name, False)

    def _find(self, name: str, secret: bool) -> Variable | None:
        text = self._variables.get(name, "").strip()
        return Variable(name, text, secret) if text else None
