"""The standard ``OTEL_*`` variables, as the OpenTelemetry specification defines them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple, TypeAlias
from urllib.parse import unquote

Signal: TypeAlias = Literal["metrics", "traces"]

_SECONDS_BELOW: Final = 100.0


class Variable(NamedTuple):
    """One variable that is set, and how to read it; ``secret`` ones are never quoted in an error."""

    name: str
    text: str
    secret: bool = False

    def boolean(self) -> bool:
        """``true`` or ``false``, in any case."""
        known = {"true": True, "false": False}
        try:
            return known[self.text.lower()]
        except KeyError:
            raise self.fault("true or false") from None

    def seconds(self) -> float:
        """A timeout: milliseconds, as the specification says.

        OpenTelemetry's Python SDK reads the same variables as seconds. Nobody means a timeout below 100 ms, or one that long in
        seconds, so that a number below 100 is taken as seconds and both kinds of deployment get what they mean.
        """
        try:
            number = float(self.text)
        except ValueError:
            number = 0.0
        if not 0 < number < float("inf"):
            raise self.fault("milliseconds, more than 0")
        return number if number < _SECONDS_BELOW else number / 1000

    def pairs(self) -> dict[str, str]:
        """``key=value,key=value``, both percent-encoded."""
        found: dict[str, str] = {}
        for position, item in enumerate(self.text.split(","), 1):
            if not item.strip():
                continue
            key, equals, value = item.partition("=")
            if not equals or not key.strip():
                raise self.fault(f"key=value pairs separated by commas (item {position} is none)")
            try:
                found[unquote(key.strip(), errors="strict")] = unquote(value.strip(), errors="strict")
            except UnicodeDecodeError as error:
                raise self.fault(f"percent-encoded UTF-8 (item {position} is not)") from error
        return found

    def fault(self, expected: str) -> ValueError:
        """The error that says what was expected of this variable."""
        return ValueError(
            f"{self.name}: expected {expected}" if self.secret else f"{self.name}={self.text!r}: expected {expected}"
        )


class Environment:
    """Finds a setting among the variables of the exporter: the signal's own form first, then the one for all signals."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def exporter(self, signal: Signal, option: str, *, secret: bool = False) -> Variable | None:
        """``OTEL_EXPORTER_OTLP_<SIGNAL>_<OPTION>``, else ``OTEL_EXPORTER_OTLP_<OPTION>``; an empty one counts as not set."""
        return self._find(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{option}", secret) or self._find(
            f"OTEL_EXPORTER_OTLP_{option}", secret
        )

    def general(self, name: str) -> Variable | None:
        """A variable that is not the exporter's own."""
        return self._find(name, False)

    def _find(self, name: str, secret: bool) -> Variable | None:
        text = self._variables.get(name, "").strip()
        return Variable(name, text, secret) if text else None
