"""Finds installed exporter plugins by their entry points, and names exporters. Finding imports no plugin."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast, final

from eventcore.errors import InvalidExporter, InvalidInput
from eventcore.exporting.configuration.core_floor import CORE_DISTRIBUTION, missing_core
from eventcore.exporting.configuration.distributions import Damage, installed_distributions, normalised
from eventcore.exporting.delivery.handle import PluginOrigin
from eventcore.ground import describe_error
from eventcore.version import __version__

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = "eventcore.exporters"
"""The entry-point group of exporter plugins."""

OFFICIAL: Final = MappingProxyType({"otel": "eventcore-otel", "prometheus": "eventcore-prometheus"})
"""eventcore's own plugins and their distributions, for hints about what to install. Core imports none of them."""

_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_RESERVED: Final = ("enabled", "disabled", "none", "all")


@final
class FoundPlugin:
    """An installed exporter plugin. Only ``load`` imports it.

    Attributes:
        name: the name of the entry point, which is the plugin's name in configuration.
        distribution: the name of the distribution that contains the plugin.
        version: the version of the distribution.
        value: the target of the entry point, ``package.module:attribute``.
        missing_core: the requirement that the installed eventcore-core is too old for; empty when there is none.
    """

    __slots__ = ("_entry_point", "distribution", "missing_core", "name", "value", "version")

    def __init__(self, entry_point: EntryPoint, distribution: str, version: str, missing_core: str = "") -> None:
        self._entry_point = entry_point
        self.missing_core = missing_core
        self.name = entry_point.name
        self.value = entry_point.value
        self.distribution = distribution
        self.version = version

    def __repr__(self) -> str:
        return f"<FoundPlugin {self.name!r} of {self.distribution} {self.version}: {self.value}>"

    @property
    def origin(self) -> PluginOrigin:
        """The plugin and its distribution, for messages and ``ExporterHandle``."""
        return PluginOrigin(self.name, self.distribution, self.version)

    @property
    def core(self) -> bool:
        """Whether the plugin belongs to eventcore-core: such a plugin is loaded only when ``enabled`` names it."""
        return normalised(self.distribution) == CORE_DISTRIBUTION

    def load(self) -> Callable[..., Any]:
        """Import the plugin and return the callable that makes an exporter from settings.

        Raises:
            InvalidExporter: the name of the plugin is not valid, its entry point does not name a callable, or it requires a
                newer eventcore-core.
            Exception: whatever the import raises; ``ImportError`` in place of ``SystemExit``.
        """
        problem = exporter_name_problem(self.name)
        if problem is None and type(self._entry_point).pattern.match(self.value) is None:
            problem = f"its entry point {self.value!r} does not fit; expected 'package.module:attribute'"
        if problem is None and self.missing_core:
            problem = (
                f"it requires {self.missing_core}, and {__version__} is installed; "
                f"upgrade: pip install --upgrade '{self.missing_core}'"
            )
        if problem is not None:
            raise InvalidExporter(f"{self.origin}: {problem}")
        try:
            factory: object = self._entry_point.load()
        except SystemExit as error:
            raise ImportError(
                f"{self.origin}: importing {self.value} tried to end the process: {describe_error(error)}"
            ) from error
        if not callable(factory):
            raise InvalidExporter(
                f"{self.origin}: its entry point {self.value} leads to a {type(factory).__name__}; "
                "expected a class, or a function that returns an exporter"
            )
        return cast(Callable[..., Any], factory)

    def names(self, cls: type) -> bool:
        """Whether the entry point names this class, as far as that is known without an import."""
        module, _, path = self.value.partition("[")[0].replace(" ", "").partition(":")
        if (module, path) == (cls.__module__, cls.__qualname__):
            return True
        found: object = sys.modules.get(module)
        for part in path.split("."):
            found = inspect.getattr_static(found, part, None)
        return found is cls


def find_plugins() -> tuple[tuple[FoundPlugin, ...], tuple[Damage, ...]]:
    """Every installed exporter plugin, sorted by name, and the metadata that cannot be read.

    If two distributions have a plugin of one name, both are listed.
    """
    from importlib.metadata import EntryPoint  # takes ten milliseconds, which no first command waits for

    damages: list[Damage] = []
    found: list[FoundPlugin] = []
    for distribution in installed_distributions(damages):
        for name, value in distribution.entry_points(GROUP):
            missing = missing_core(distribution.requirements)
            found.append(FoundPlugin(EntryPoint(name, value, GROUP), distribution.name, distribution.version, missing))
    found.sort(key=lambda plugin: (plugin.name, plugin.distribution, plugin.value))
    return tuple(found), tuple(damages)


def all_damages() -> tuple[Damage, ...]:
    """Every damage in the metadata of what is installed, also in files that finding plugins does not need."""
    damages: list[Damage] = []
    for distribution in installed_distributions(damages):
        distribution.entry_points(GROUP)
        distribution.examine()
    return tuple(damages)


def how_to_install(plugin: str) -> str | None:
    """The command that installs one of eventcore's own plugins; ``None`` for other plugins.

    >>> how_to_install("otel")
    "pip install 'eventcore-core[otel]'"
    """
    return f"pip install '{CORE_DISTRIBUTION}[{plugin}]'" if plugin in OFFICIAL else None


def exporter_name_problem(name: object) -> str | None:
    """What is wrong with an exporter's name, and what was expected; ``None`` for a valid name."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or "__" in name:
        return f"the exporter name {name!r:.80} does not fit; expected a-z, 0-9 and single underscores, beginning with a letter"
    if name in _RESERVED:
        return f"the exporter name {name!r} is reserved; expected another than {', '.join(_RESERVED)}"
    return None


def exporter_name(exporter: object, plugins: Sequence[FoundPlugin], name: str | None = None) -> tuple[str, PluginOrigin | None]:
    """The name of an exporter that code registers, and the plugin that it comes from.

    The name is ``name``; if that is ``None``, the name of the exporter's plugin, else the name of its class in snake case.

    Raises:
        InvalidInput: the name is not valid, or ``name`` is left out and the name of the class is not valid.
    """
    cls = type(exporter)
    valid = (plugin for plugin in plugins if exporter_name_problem(plugin.name) is None)
    plugin = next((plugin for plugin in valid if plugin.names(cls)), None)
    if name is not None:
        if (problem := exporter_name_problem(name)) is not None:
            raise InvalidInput(problem)
    elif plugin is not None:
        name = plugin.name
    elif exporter_name_problem(name := _snake_case(cls.__name__)) is not None:
        raise InvalidInput(f"the class {cls.__qualname__} gives no name for its exporter; register it with name=...")
    return name, plugin.origin if plugin is not None else None


def _snake_case(name: str) -> str:
    """
    >>> _snake_case("HTTPServerThing"), _snake_case("StatsD2Exporter")
    ('http_server_thing', 'stats_d2_exporter')
    """
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return re.sub(r"_+", "_", words).strip("_").lower()
