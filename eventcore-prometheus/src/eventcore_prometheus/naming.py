"""Derives Prometheus names from OpenTelemetry names: units in words, ``_total`` for counters, and renames."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, final

from eventcore.exporting import canonical_name

Kind: TypeAlias = Literal["counter", "gauge", "histogram", "info"]
Instrument: TypeAlias = tuple[Kind, str]
"""What a page calls an instrument: its kind and its name in code."""

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
_NAME_IN_CODE: Final = re.compile(r"[a-z][a-z0-9]*(?:[._][a-z0-9]+)*")
_PROMETHEUS_NAME: Final = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
# The names of a family's samples, and of the family in the text format, by their suffixes. What two instruments may not share.
_SAMPLES: Final[Mapping[Kind, tuple[str, ...]]] = MappingProxyType(
    {"counter": ("_total",), "gauge": ("",), "histogram": ("", "_bucket", "_sum", "_count"), "info": ("_info",)}
)
# What OpenMetrics and its readers reserve for a family beside its samples, though we write no `_created`.
_RESERVED: Final[Mapping[Kind, tuple[str, ...]]] = MappingProxyType(
    {
        "counter": ("", "_total", "_created"),
        "gauge": ("",),
        "histogram": ("", "_bucket", "_sum", "_count", "_created"),
        "info": ("", "_info"),
    }
)
# The published contract: these names belong to core, also before it records anything.
_PUBLISHED: Final[tuple[tuple[Kind, str, str], ...]] = (
    ("counter", "eventcore.commands.total", "{command}"),
    ("histogram", "eventcore.commands.duration", "s"),
    ("counter", "eventcore.events.written", "{event}"),
    ("gauge", "eventcore.streams.active", "{stream}"),
)
# What the holder of the port says of all workers: put on the page without this class, so no instrument may have its name.
_UP: Final = "eventcore.exporters.worker.up"
# The rank of an instrument of which nobody says when it was created; higher than every number that core gives.
_UNKNOWN_AGE: Final = 1 << 60


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
        if not _NAME_IN_CODE.fullmatch(source):
            raise ValueError(
                f"rename: {source!r} is no name of an instrument; expected its name in code: words of a-z and 0-9 joined by "
                "single dots or underscores, as in {'orders.shipped': 'shop_orders_shipped_total'}"
            )
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

    When two instruments would have one name, the one that was created first has it, also if the
    other one came to a page before.

    Args:
        renames: the table that ``check_renames`` returns.

    Attributes:
        lost: the instruments without a name, each with the sample name that it would have and the
            name of the instrument that has it.
    """

    def __init__(self, renames: Mapping[str, str]) -> None:
        self.lost: dict[Instrument, tuple[str, str]] = {}
        self._renames = renames
        self._assigned: dict[Instrument, ExposedName | None] = {}
        self._owners: dict[str, Instrument] = {}
        self._ranks: dict[Instrument, int] = {}
        for kind, name, unit in _PUBLISHED:
            self._take((kind, name), self._claims(kind, self._expose(kind, name, unit)), 0)
        # Under a name that no instrument can have, so that one which is called so is a rival, too.
        self._take(("gauge", f"{_UP} of the page"), [_FOREIGN.sub("_", _UP)], 0)

    def find(self, kind: Kind, name: str, unit: str, created: int = 0) -> ExposedName | None:
        """The name of an instrument; ``None`` when its name belongs to another one.

        Args:
            kind: of the instrument.
            name: its name in code.
            unit: its unit in UCUM.
            created: its place in the order in which instruments were created; 0 when it is not
                known: then it comes after all others.
        """
        instrument = (kind, name)
        if instrument not in self._assigned:
            exposed = self._expose(kind, name, unit)
            claims = self._claims(kind, exposed)
            rank = self._ranks.get(instrument, created or _UNKNOWN_AGE + len(self._ranks))
            rivals = self._rivals(instrument, claims)
            if older := [rival for rival in rivals if self._ranks[rival] < rank]:
                self.lost[instrument] = (exposed.sample, older[0][1])
                self._assigned[instrument] = None
            else:
                for rival in rivals:
                    self.lost[rival] = (exposed.sample, name)
                    self._assigned[rival] = None
                    self._owners = {claim: owner for claim, owner in self._owners.items() if owner != rival}
                self._take(instrument, claims, rank)
                self._assigned[instrument] = exposed
        return self._assigned[instrument]

    def _rivals(self, instrument: Instrument, claims: list[str]) -> list[Instrument]:
        """The other instruments that own one of these names."""
        owners = (self._owners.get(claim, instrument) for claim in claims)
        return list(dict.fromkeys(owner for owner in owners if owner != instrument))

    def _take(self, instrument: Instrument, claims: list[str], rank: int) -> None:
        self._owners.update(dict.fromkeys(claims, instrument))
        self._ranks[instrument] = rank

    def _claims(self, kind: Kind, exposed: ExposedName) -> list[str]:
        return [exposed.family + suffix for suffix in _SAMPLES[kind]]

    def _expose(self, kind: Kind, name: str, unit: str) -> ExposedName:
        words = unit_words(unit)
        suffix = f"_{words}" if words else ""
        canonical = canonical_name(name)
        if renamed := self._renames.get(canonical):
            family = renamed.removesuffix("_total") if kind == "counter" else renamed
        else:
            family = _FOREIGN.sub("_", canonical)
            family = family.removesuffix("_total") if kind == "counter" else family
            family = family.removesuffix("_info") if kind == "info" else family
            # A name that ends in the symbol of its unit gets the word in its place, and not behind it.
            family = family.removesuffix(f"_{unit}") if suffix and unit in _UNITS else family
            family = family if family.endswith(suffix) else family + suffix
        return ExposedName(
            family=family,
            sample=family + _SAMPLES[kind][0],
            unit=words if suffix and family.endswith(suffix) else "",
        )


def unknown_in_openmetrics(families: Iterable[tuple[Kind, ExposedName]]) -> tuple[frozenset[str], bool]:
    """Which counters have no type in OpenMetrics, because the name of their family is in use there.

    In OpenMetrics the family of the counter ``orders_created_total`` is ``orders_created``, which is
    reserved for the counter ``orders_total``. Both are shown, and the second one has the type
    ``unknown`` and the family ``orders_created_total``.

    Args:
        families: in the order in which they take names.

    Returns:
        The samples of these counters, and whether a page with these families can be OpenMetrics at
        all: beside a histogram ``orders``, a gauge ``orders_created`` has no name there.
    """
    taken: set[str] = set()
    counters: list[ExposedName] = []
    clash = False
    for kind, name in families:
        if kind == "counter":
            counters.append(name)
            continue
        names = {name.family + suffix for suffix in _RESERVED[kind]}
        clash = clash or not names.isdisjoint(taken)
        taken |= names
    unknown: set[str] = set()
    for name in counters:
        names = {name.family + suffix for suffix in _RESERVED["counter"]}
        if not names.isdisjoint(taken):
            unknown.add(name.sample)
            names = {name.sample}
            clash = clash or name.sample in taken
        taken |= names
    return frozenset(unknown), not clash
