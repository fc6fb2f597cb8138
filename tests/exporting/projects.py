"""A directory with a configuration file, and what is read from it."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from eventcore.exporting.configuration.discovery import GROUP, FoundPlugin
from eventcore.exporting.configuration.settings import Configuration, load_configuration
from eventcore.exporting.configuration.sources import nested


def installed(*plugins: str) -> list[FoundPlugin]:
    """Plugins as they are found, each of ``name`` or ``name@distribution``."""
    described = [plugin.partition("@") for plugin in plugins]
    return [
        FoundPlugin(EntryPoint(name, f"{name}:X", GROUP), dist or f"eventcore-{name}", "1.0") for name, _, dist in described
    ]


PLUGINS = installed("console@eventcore-core", "otel", "prometheus", "statsd@acme-statsd")


class Project:
    """A directory with a configuration file, and an environment."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environ: dict[str, str] = {}
        self.file = directory / "eventcore.toml"

    def load(
        self, config: Any = None, exporters: Any = None, plugins: list[FoundPlugin] = PLUGINS, **more: Any
    ) -> Configuration:
        return load_configuration(config, exporters, environ=self.environ, cwd=self.directory, plugins=plugins, **more)


def loaded(configuration: Configuration) -> list[str]:
    assert [str(fault) for fault in configuration.faults] == []
    return [plan.name for plan in configuration.exporters if plan.action == "load"]


def reasons(configuration: Configuration) -> dict[str, tuple[str, str]]:
    return {plan.name: (plan.action, plan.reason) for plan in configuration.exporters}


def faults(configuration: Configuration) -> list[str]:
    return [str(fault) for fault in configuration.faults]


def values(configuration: Configuration, name: str) -> dict[str, Any]:
    """The settings of an exporter as they were given, nested as in a file."""
    found: dict[str, Any] = nested({path: setting.value for path, setting in configuration.settings_of(name).items()})
    return found
