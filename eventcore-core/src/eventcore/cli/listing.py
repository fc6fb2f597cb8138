"""``eventcore plugins``: every exporter that is installed or configured, and what becomes of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, TypeAlias, final

import msgspec

from eventcore.cli.output import Output
from eventcore.errors import Fault
from eventcore.exporting.configuration.discovery import OFFICIAL, FoundPlugin, how_to_install
from eventcore.exporting.configuration.loading import LoadedExporters, load_exporters
from eventcore.exporting.configuration.settings import Configuration, ExporterPlan, load_configuration

State: TypeAlias = Literal["loaded", "failed", "disabled", "not enabled", "not installed"]


@final
class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One exporter, or a plugin that is none yet."""

    name: str
    plugin: str
    distribution: str | None
    version: str | None
    state: State
    reason: str
    kinds: tuple[str, ...] = ()
    install: str | None = None


@final
class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``eventcore plugins --json``."""

    version: int = 1
    files: tuple[str, ...]
    exporters_off: bool
    faults: tuple[Fault, ...]
    exporters: tuple[Row, ...]

    @property
    def exit_code(self) -> int:
        """As ``eventcore --help`` documents it."""
        return 2 if self.faults else int(any(row.state == "failed" for row in self.exporters))


def plugins(output: Output, *, config: Path | None) -> int:
    """Print the exporters and return the exit code."""
    listing = list_exporters(load_configuration(config, environ=os.environ, cwd=Path.cwd()))
    if output.as_json:
        output.object(listing)
        return listing.exit_code
    output.faults(listing.faults)
    if listing.exporters_off:
        output.line("EVENTCORE_EXPORTERS=none: nothing is exported.\n")
    output.table(
        ["exporter", "plugin", "distribution", "version", "state", "exports", "why"],
        [
            [
                row.name,
                row.plugin,
                row.distribution or "-",
                row.version or "-",
                row.state,
                ", ".join(row.kinds) or "-",
                row.reason,
            ]
            for row in listing.exporters
        ],
    )
    return listing.exit_code


def list_exporters(configuration: Configuration) -> Listing:
    """Import what is enabled, and say of every exporter how it is."""
    loaded = load_exporters(configuration)
    installed = {plugin.name for plugin in configuration.plugins}
    listed = [plan for plan in configuration.exporters if plan.found is not None]
    # Disabled, and not installed: one that somebody thought of.
    listed += [plan for plan in configuration.exporters if plan.action == "disabled" and plan.plugin not in installed]
    rows = [_row(plan, loaded) for plan in listed]
    rows += [
        _ambiguous(plugin, configuration)
        for plugin in configuration.plugins
        if not any(plan.found is plugin for plan in configuration.exporters)
    ]
    rows += [_not_installed(name) for name in OFFICIAL if name not in installed and name not in {row.name for row in rows}]
    return Listing(
        files=configuration.files,
        exporters_off=configuration.exporters_off,
        faults=(*configuration.faults, *loaded.faults),
        exporters=tuple(rows),
    )


def _row(plan: ExporterPlan, loaded: LoadedExporters) -> Row:
    kinds: tuple[str, ...] = ()
    state: State
    reason = plan.reason
    ready = next((ready for ready in loaded.ready if ready.name == plan.name), None)
    failed = next((failed for failed in loaded.failed if failed.name == plan.name), None)
    if plan.action != "load":
        state = "disabled" if plan.action == "disabled" else "not enabled"
    elif ready is not None:
        state, kinds = "loaded", ready.handle.kinds
    else:
        state = "failed"
        reason = failed.reason if failed is not None else "its configuration has faults"
    return Row(
        name=plan.name,
        plugin=plan.plugin,
        distribution=plan.found.distribution if plan.found is not None else None,
        version=plan.found.version if plan.found is not None else None,
        state=state,
        reason=reason,
        kinds=kinds,
    )


def _ambiguous(plugin: FoundPlugin, configuration: Configuration) -> Row:
    """A plugin of which no exporter was planned: another distribution brings one of the same name."""
    others = [other for other in configuration.plugins if other.name == plugin.name and other is not plugin]
    named = ", ".join(f"{other.distribution} {other.version}" for other in others)
    plan = next((plan for plan in configuration.exporters if plan.name == plugin.name), None)
    enabled = plan is None and not configuration.exporters_off
    return Row(
        name=plugin.name,
        plugin=plugin.name,
        distribution=plugin.distribution,
        version=plugin.version,
        state="failed" if enabled else "disabled" if plan is not None and plan.action == "disabled" else "not enabled",
        reason=f"{named} brings a plugin of this name too" if enabled or plan is None else plan.reason,
    )


def _not_installed(plugin: str) -> Row:
    install = how_to_install(plugin)
    return Row(
        name=plugin,
        plugin=plugin,
        distribution=OFFICIAL[plugin],
        version=None,
        state="not installed",
        reason=f"install it: {install}",
        install=install,
    )
