"""From the configuration to checked exporters: the one place where a plugin is imported and its callable called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import msgspec

from eventcore.errors import ConfigurationError, Fault
from eventcore.exporting.configuration.settings import Configuration, ExporterPlan
from eventcore.exporting.configuration.signature import bind_settings, masked
from eventcore.exporting.configuration.sources import settings_in
from eventcore.exporting.delivery.handle import ExporterHandle
from eventcore.exporting.delivery.settings import PipelineSettings
from eventcore.exporting.registration import check_exporter


@final
class ReadyExporter(msgspec.Struct, frozen=True):
    """An exporter that can be given a pipeline."""

    name: str
    handle: ExporterHandle
    pipeline: PipelineSettings
    shown_settings: Mapping[str, Any]


@final
class FailedExporter(msgspec.Struct, frozen=True):
    """An exporter that is configured rightly and breaks: its import, its constructor or its hooks."""

    name: str
    reason: str


@final
class LoadedExporters(msgspec.Struct, frozen=True):
    """What became of the exporters that are to be loaded."""

    ready: tuple[ReadyExporter, ...]
    failed: tuple[FailedExporter, ...]
    faults: tuple[Fault, ...]


def load_exporters(configuration: Configuration) -> LoadedExporters:
    """Make every exporter that the configuration wants, and gather everything that is wrong; starts none.

    It blocks for as long as the imports do, so it does not belong on an event loop.
    """
    ready: list[ReadyExporter] = []
    failed: list[FailedExporter] = []
    faults: list[Fault] = []
    for plan in configuration.exporters:
        if plan.action != "load" or plan.found is None or plan.faults:
            continue
        try:
            handle, shown_settings = make_exporter(plan)
        except ConfigurationError as error:
            faults.extend(error.faults)
        except BaseException as error:  # noqa: BLE001  # whatever a plugin raises, the others and the application go on
            failed.append(FailedExporter(plan.name, f"{type(error).__name__}: {error}"))
        else:
            if (fault := configuration.pull_interval_fault(plan.name, handle)) is not None:
                faults.append(fault)
            else:
                ready.append(ReadyExporter(plan.name, handle, plan.pipeline, shown_settings))
    return LoadedExporters(tuple(ready), tuple(failed), tuple(faults))


def make_exporter(plan: ExporterPlan) -> tuple[ExporterHandle, Mapping[str, Any]]:
    """Import a plugin, convert its settings, make the exporter and check it.

    It may block for as long as the import does, so it does not belong on an event loop.

    Returns:
        The checked exporter, and its settings as ``ExporterContext.settings`` shows them.

    Raises:
        ConfigurationError: the settings have faults, or the plugin refuses them with a ``ValueError``; it lists them all.
        InvalidExporter: the plugin does not fit the specification.
        Exception: whatever the plugin raises when it is imported or called.
    """
    if plan.found is None or plan.action != "load":
        raise ValueError(f"exporter {plan.name!r} is not to be loaded: {plan.reason}")
    factory = plan.found.load()
    arguments, faults = bind_settings(factory, plan.settings, name=plan.name, where=plan.where, origin=plan.origin)
    if faults:
        raise ConfigurationError(faults)
    try:
        exporter = factory(**arguments)
    except ValueError as error:
        if not plan.settings:
            raise
        # Of the right type and still wrong, as a port of 70000 is: only the plugin knows, and the settings are to be mended.
        source = next(settings_in(plan.settings), None)
        where = source.where if source is not None else plan.where
        raise ConfigurationError([Fault(where, f"exporters.{plan.name}", str(error))]) from error
    except SystemExit as error:
        raise RuntimeError(
            f"{plan.origin}: making the exporter tried to end the process: SystemExit({error.code!r})"
        ) from error
    return check_exporter(exporter, plan.origin), masked(plan.settings, factory)
