"""Derives Prometheus names from OpenTelemetry names: units in words, ``_total`` for counters, and renames."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, final

from eventcore.exporting import canonical_name

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]

RENAMED: Final[Mapping[str, str]] = MappingProxyType({"eventcore.commands.duration": "eventcore_command_duration_seconds"})
"""Published names that do not follow the rules."""

_UNITS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ns": "nanoseconds",
        "us": "microseconds",
        "ms": "milliseconds",
        "s": "seconds",
        "min": "minutes",
        "h": "hours",
        "d": "days",
        "By": "bytes",
        "kBy": "kilobytes",
        "MBy": "megabytes",
        "GBy": "gigabytes",
        "KiBy": "kibibytes",
        "MiBy": "mebibytes",
        "GiBy": "gibibytes",
        "bit": "bits",
        "m": "meters",
        "g": "grams",
        "kg": "kilograms",
        "V": "volts",
        "A": "amperes",
        "W": "watts",
        "J": "joules",
        "Hz": "hertz",
        "Cel": "celsius",
        "%": "percent",
    }
)
_PER: Final[Mapping[str, str]] = MappingProxyType(
    {"s": "second", "min": "minute", "h": "hour", "d": "day", "By": "byte", "bit": "bit", "m": "meter", "g": "gram"}
)
_ANNOTATION: Final = re.compile(r"\{[^}]*\}")
_FOREIGN: Final = re.compile(r"[^a-zA-Z0-9_]+")
_PROMETHEUS_NAME: Final = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
# A family uses its name with each of these suffixes, in the text format or in OpenMetrics.
_SUFFIXES: Final[Mapping[Kind, tuple[str, ...]]] = MappingProxyType(
    {
        "counter": ("", "_total", "_created"),
        "gauge": ("",),
        "histogram": ("", "_bucket", "_sum", "_count", "_created"),
    }
)


@final
@dataclass(frozen=True, slots=True)
class ExposedName:
    """The Prometheus names of one instrument.

    Attributes:
        family: the name of the metric family in OpenMetrics.
        sample: the name of the samples, and of the family in the text format.
        unit: the unit for OpenMetrics; empty if the name does not end in one.
    """

    family: str
    sample: str
    unit: str


def unit_words(unit: str) -> str:
    """The UCUM unit in words, as in Prometheus names; empty for units that do not belong into a name, such as ``{command}``.

    >>> unit_words("s"), unit_words("By"), unit_words("By/s"), unit_words("{command}"), unit_words("1")
    ('seconds', 'bytes', 'bytes_per_second', '', '')
    """
    numerator, *denominators = (part.strip() for part in _ANNOTATION.sub("", unit).split("/"))
    words = [] if numerator in ("", "1") else [_UNITS.get(numerator, numerator)]
    words += [f"per_{_PER.get(part, part)}" for part in denominators if part not in ("", "1")]
    return _FOREIGN.sub("_", "_".join(words)).strip("_")


def check_renames(rename: Mapping[str, str]) -> dict[str, str]:
    """The table of all renames, by canonical name: ``RENAMED``, replaced and extended by ``rename``.

    Args:
        rename: Prometheus names by the names of instruments.

    Raises:
        ValueError: a new name is not a valid Prometheus name, or two instruments would get the same
            name.
    """
    table = {canonical_name(source): target for source, target in RENAMED.items()}
    sources = {canonical_name(source): source for source in RENAMED}
    given: dict[str, str] = {}
    for source, target in rename.items():
        if not _PROMETHEUS_NAME.fullmatch(target):
            raise ValueError(
                f"rename: {source!r} = {target!r} does not fit; expected an instrument and a Prometheus name: letters, "
                "digits and underscores, beginning with neither a digit nor '__', as in {'orders': 'shop_orders_total'}"
            )
        key = canonical_name(source)
        if key in given:
            raise ValueError(f"rename: {given[key]!r} and {source!r} are the same instrument; leave one of them out")
        given[key] = source
        table[key], sources[key] = target, source
    owners: dict[str, str] = {}
    for key, target in table.items():
        base = target.removesuffix("_total")
        if base in owners:
            raise ValueError(
                f"rename: {sources[owners[base]]!r} and {sources[key]!r} would both be {target!r}; choose another name for one"
            )
        owners[base] = key
    return table


class Names:
    """Assigns a Prometheus name to each instrument, and never the same name to two.

    Args:
        renames: the table that ``check_renames`` returns.
    """

    def __init__(self, renames: Mapping[str, str]) -> None:
        self._renames = renames
        self._assigned: dict[tuple[Kind, str], ExposedName | None] = {}
        self._owners: dict[str, str] = {}

    def find(self, kind: Kind, name: str, unit: str) -> ExposedName | None:
        """The name of an instrument; ``None`` when its name, or one with a suffix, belongs to another instrument."""
        key = (kind, name)
        try:
            return self._assigned[key]
        except KeyError:
            exposed = self._expose(kind, name, unit)
            claims = [exposed.family + suffix for suffix in _SUFFIXES[kind]]
            if self.conflict(claims):
                self._assigned[key] = None
            else:
                self._owners.update(dict.fromkeys(claims, name))
                self._assigned[key] = exposed
            return self._assigned[key]

    def conflict(self, claims: list[str]) -> str:
        """The instrument that owns one of these names; empty if there is none."""
        return next((self._owners[claim] for claim in claims if claim in self._owners), "")

    def owner(self, kind: Kind, name: str, unit: str) -> tuple[str, str]:
        """For an instrument without a name: the name it would have, and the instrument that owns that name."""
        exposed = self._expose(kind, name, unit)
        return exposed.sample, self.conflict([exposed.family + suffix for suffix in _SUFFIXES[kind]])

    def _expose(self, kind: Kind, name: str, unit: str) -> ExposedName:
        words = unit_words(unit)
        suffix = f"_{words}" if words else ""
        canonical = canonical_name(name)
        if renamed := self._renames.get(canonical):
            family = renamed.removesuffix("_total") if kind == "counter" else renamed
        else:
            family = _FOREIGN.sub("_", canonical)
            family = family.removesuffix("_total") if kind == "counter" else family
            family = family if family.endswith(suffix) else family + suffix
        return ExposedName(
            family=family,
            sample=f"{family}_total" if kind == "counter" else family,
            unit=words if suffix and family.endswith(suffix) else "",
        )
