"""``eventcore plugins``: lists every exporter that is installed or configured, with its state."""

from __future__ import annotations

import argparse
from typing import Any, Literal, TypeAlias, final

import msgspec
from msgspec.structs import replace

from eventcore.cli.output import Output, count_faults
from eventcore.cli.parsing import add_command, add_config
from eventcore.errors import Fault
from eventcore.exporting.configuration import (
    OFFICIAL,
    Configuration,
    Damage,
    ExporterPlan,
    FoundPlugin,
    LoadedExporters,
    all_damages,
    how_to_install,
    load_configuration,
    load_exporters,
)
from eventcore.health.settings import configured_health

State: TypeAlias = Literal["loaded", "loading", "failed", "disabled", "not enabled", "not installed"]


@final
class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One exporter, or a plugin that no exporter uses."""

    name: str
    plugin: str
    distribution: str | None = None
    version: str | None = None
    state: State
    reason: str
    kinds: tuple[str, ...] = ()
    install: str | None = None


@final
class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``eventcore plugins --json``."""

    files: tuple[str, ...]
    exporters_off: bool
    faults: tuple[Fault, ...]
    exporters: tuple[Row, ...]
    damages: tuple[Damage, ...] = ()

    @property
    def exit_code(self) -> int:
        """The exit code, as ``eventcore --help`` documents it."""
        return 2 if self.faults else int(any(row.state in ("failed", "loading") for row in self.exporters))


def add_plugins(commands: Any) -> None:
    """Add the command to the parsers of ``eventcore``."""
    summary = "list exporters, or show one: distribution, state, settings and their origin"
    parser = add_command(commands, "plugins", _plugins, summary)
    parser.add_argument("name", nargs="?", metavar="NAME", help="show this exporter alone, with its settings")
    add_config(parser)


def _plugins(output: Output, options: argparse.Namespace) -> int:
    """List every exporter that is installed or configured. The plugins of enabled exporters are imported, and the exporters
    are made, but not started. Other plugins are not imported.

    states:
      loaded         imported, made and checked
      loading        not imported and made in time (pipeline.load_timeout); an application goes on without it until it comes
      failed         enabled, but it cannot be imported or made, or does not fit the hook specification
      disabled       the configuration disables it
      not enabled    installed, but the configuration does not enable it
      not installed  one of eventcore's own; the last column says how to install it

    JSON (--json):
      {"version": 1, "ok", "error", "files": [path], "exporters_off": bool, "faults": [{"where", "key", "problem"}],
       "exporters": [{"name", "plugin", "distribution", "version", "state", "reason", "kinds": [...], "install"}],
       "damages": [{"file", "problem"}]}
      "damages" is metadata of installed distributions that cannot be read. It stops nothing, but may hide a plugin.
      "distribution", "version" and "install" may be null.

    With NAME: show one exporter with each of its settings (type, default, value, where it comes from; secrets as ***), and how
    it does in a running process, if an enabled exporter has an address at which that process shows its metrics. The plugin is
    imported also when the exporter is not enabled, but not when it is disabled.
      {"version": 1, "ok", "error", "files", "faults", "exporter": {...}, "interval": seconds, "temporality",
       "settings": [{"name", "type", "default", "value", "source", "key"}], "settings_problem", "pipeline": [...],
       "standard_variables": [names of OpenTelemetry's variables that are set, which a plugin may follow],
       "live": {"url", "state", "last_success_ages": {signal: seconds}, "spans": {outcome: n}, "cycles": {...}, "problem"}}
    """
    configuration = load_configuration(options.config)
    if options.name is not None:
        # Imported here, because it imports this module.
        from eventcore.cli.details import show_details

        return show_details(output, configuration, options.name)
    listing = list_exporters(configuration)
    return output.answer(listing.exit_code, listing, lambda: _print(output, listing), count_faults(listing.faults))


def _print(output: Output, listing: Listing) -> None:
    output.faults(listing.faults)
    if listing.exporters_off:
        output.line("EVENTCORE_EXPORTERS=none: nothing is exported.\n")
    titles = ["exporter", "plugin", "distribution", "version", "state", "exports", "why"]
    rows = [
        [row.name, row.plugin, row.distribution or "-", row.version or "-", row.state, ", ".join(row.kinds) or "-", row.reason]
        for row in listing.exporters
    ]
    output.table(titles, rows)
    if listing.damages:
        output.line("Metadata of installed distributions is damaged. It stops nothing, but may hide a plugin:")
        for damage in listing.damages:
            output.line(f"  - {damage}")


def list_exporters(configuration: Configuration, loaded: LoadedExporters | None = None) -> Listing:
    """Describe every exporter and every installed plugin. Without ``loaded``, import the plugins of the enabled exporters."""
    loaded = loaded if loaded is not None else load_exporters(configuration)
    installed = {plugin.name for plugin in configuration.plugins}
    plans = configuration.exporters
    rows = [_row(plan, loaded) for plan in plans if plan.found is not None]
    # A plugin that is disabled and not installed is listed, because the configuration names it.
    rows += [_row(plan, loaded) for plan in plans if plan.action == "disabled" and plan.plugin not in installed]
    rows += [
        _ambiguous(plugin, configuration) for plugin in configuration.plugins if not any(plan.found is plugin for plan in plans)
    ]
    rows += [_not_installed(name) for name in OFFICIAL if name not in installed and name not in {row.name for row in rows}]
    return Listing(
        files=configuration.files,
        exporters_off=configuration.exporters_off,
        faults=(*loaded.faults, *configured_health(configuration)[1]),
        exporters=tuple(rows),
        damages=all_damages(),
    )


def _row(plan: ExporterPlan, loaded: LoadedExporters) -> Row:
    kinds = next((ready.handle.kinds for ready in loaded.ready if ready.name == plan.name), None)
    state: State = "loaded"
    reason = plan.reason
    if plan.action != "load":
        state = "disabled" if plan.action == "disabled" else "not enabled"
    elif kinds is None:
        absent = next(absent for absent in loaded.absent if absent.name == plan.name)
        state, reason = absent.state, absent.problem
    row = Row(name=plan.name, plugin=plan.plugin, state=state, reason=reason, kinds=kinds or ())
    return row if plan.found is None else replace(row, distribution=plan.found.distribution, version=plan.found.version)


def _ambiguous(plugin: FoundPlugin, configuration: Configuration) -> Row:
    """A plugin without an exporter, because another distribution brings a plugin of the same name."""
    others = [other for other in configuration.plugins if other.name == plugin.name and other is not plugin]
    named = ", ".join(f"{other.distribution} {other.version}" for other in others)
    plan = next((plan for plan in configuration.exporters if plan.name == plugin.name), None)
    state: State = "not enabled"
    if plan is None and not configuration.exporters_off:
        state = "failed"
    elif plan is not None and plan.action == "disabled":
        state = "disabled"
    return Row(
        name=plugin.name,
        plugin=plugin.name,
        distribution=plugin.distribution,
        version=plugin.version,
        state=state,
        reason=plan.reason if plan is not None else f"{named} brings a plugin of this name too",
    )


def _not_installed(plugin: str) -> Row:
    install = how_to_install(plugin)
    return Row(
        name=plugin,
        plugin=plugin,
        distribution=OFFICIAL[plugin],
        state="not installed",
        reason=f"install it: {install}",
        install=install,
    )
