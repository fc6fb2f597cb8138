"""From the configuration to exporters: imports plugins, checks their settings and calls them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, final

import msgspec

from eventcore.errors import Fault
from eventcore.exporting.configuration.discovery import FoundPlugin
from eventcore.exporting.configuration.settings import Configuration
from eventcore.exporting.configuration.signature import bind_settings, masked
from eventcore.exporting.delivery.handle import ExporterHandle
from eventcore.exporting.delivery.settings import PipelineSettings
from eventcore.exporting.registration import check_exporter


@final
class ReadyExporter(msgspec.Struct, frozen=True):
    """A checked exporter, its settings for the pipeline, and the plugin's own settings with secrets masked."""

    name: str
    handle: ExporterHandle
    pipeline: PipelineSettings
    shown_settings: Mapping[str, Any]


@final
class FailedExporter(msgspec.Struct, frozen=True):
    """An exporter whose configuration is right, but whose plugin cannot be imported, called or used."""

    name: str
    reason: str


@final
class LoadedExporters(msgspec.Struct, frozen=True):
    """The exporters that the configuration enables, and every fault of the configuration, core's and the plugins'."""

    ready: tuple[ReadyExporter, ...]
    failed: tuple[FailedExporter, ...]
    faults: tuple[Fault, ...]


def load_exporters(configuration: Configuration) -> LoadedExporters:
    """Make every enabled exporter without starting it, and complete the faults of the configuration.

    The plugins' own settings can be checked only when the plugins are imported, which may block for long: do not call this on
    an event loop. A plugin that breaks is ``failed`` and stops no other one.
    """
    ready: list[ReadyExporter] = []
    failed: list[FailedExporter] = []
    faults = list(configuration.faults)
    for plan in configuration.exporters:
        if plan.action != "load" or plan.found is None:
            continue
        try:
            made = _make_exporter(plan.name, plan.found, configuration)
        except BaseException as error:  # noqa: BLE001  # a plugin may raise anything, which must not stop the others
            failed.append(FailedExporter(plan.name, f"{type(error).__name__}: {error}"))
            continue
        if isinstance(made, ReadyExporter):
            ready.append(made)
        else:
            faults += made
    return LoadedExporters(tuple(ready), tuple(failed), tuple(faults))


def _make_exporter(name: str, plugin: FoundPlugin, configuration: Configuration) -> ReadyExporter | list[Fault]:
    """Import a plugin, convert its settings, call it and check the exporter; or return the faults of its settings.

    Raises:
        InvalidExporter: the plugin does not fit the specification.
        Exception: whatever the plugin raises when it is imported or called.
    """
    factory = plugin.load()
    settings = configuration.settings_of(name)
    arguments, faults = bind_settings(factory, settings, name=name, where=configuration.file, origin=plugin.origin)
    # Core's faults of this section count, too: the pipeline would run with defaults in place of what the operator wrote.
    if faults or configuration.faults_of(name):
        # Without calling the plugin, only a class attribute can say that this is a pull exporter.
        return faults + configuration.pull_interval_faults(name, inspect.getattr_static(factory, "interval", ...))
    try:
        exporter = factory(**arguments)
    except ValueError as error:
        # The types are right, but the plugin refuses a value, such as a port of 70000. Without settings there is no value to
        # refuse, and the plugin itself is broken.
        if not settings:
            raise
        return [Fault(next(iter(settings.values())).where, f"exporters.{name}", str(error))]
    except SystemExit as error:
        raise RuntimeError(
            f"{plugin.origin}: making the exporter tried to end the process: SystemExit({error.code!r})"
        ) from error
    handle = check_exporter(exporter, plugin.origin)
    if faults := configuration.pull_interval_faults(name, handle.interval):
        return faults
    return ReadyExporter(name, handle, configuration.pipeline_for(name), masked(settings, factory))
