"""The configuration of telemetry: which exporters there are, with which settings, and everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, final

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from eventcore.errors import ConfigurationError, Fault
from eventcore.exporting.configuration.conversion import annotations_of, convert_fields, suggest, unknown_key
from eventcore.exporting.configuration.discovery import FoundPlugin, exporter_name_problem, find_plugins
from eventcore.exporting.configuration.selection import plan_exporters, read_selection
from eventcore.exporting.configuration.sources import (
    ARGUMENTS,
    NOWHERE,
    Setting,
    Tree,
    from_environment,
    from_file,
    from_mapping,
    merge,
    place,
)
from eventcore.exporting.delivery.handle import ExporterHandle, PluginOrigin
from eventcore.exporting.delivery.settings import PipelineSettings

CONFIG_FILE: Final = "eventcore.toml"
"""Read from the working directory when nothing else names a file."""

_Scalar: TypeAlias = str | bool | int | float


@final
class TelemetrySettings(msgspec.Struct, frozen=True, kw_only=True):
    """The table ``[telemetry]``.

    Attributes:
        service_name: the attribute ``service.name`` of the resource; empty when nothing says it.
        resource: further attributes of the resource.
        traces_per_second: new traces that are recorded, each second; ``"all"`` lifts the limit.
        verbosity: how much is recorded.
        series_limit: the most series of one instrument; more go into an overflow series.
    """

    service_name: str = ""
    resource: dict[str, _Scalar | list[_Scalar]] = {}
    traces_per_second: Annotated[float, Meta(ge=0, le=1e9)] | Literal["all"] = 100.0
    verbosity: Literal["off", "normal", "verbose"] = "normal"
    series_limit: Annotated[int, Meta(ge=1, le=10_000_000)] = 2000


@final
class ExporterPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to become of one exporter.

    Attributes:
        name: the exporter's name.
        plugin: the plugin that it is an instance of.
        action: whether to load it; ``"disabled"`` and ``"not_enabled"`` are never imported.
        reason: why, for people.
        settings: the plugin's own settings, not yet converted.
        pipeline: core's settings for it.
        found: the installed plugin; ``None`` when there is none, or more than one.
        where: the file in which a missing setting would stand.
        faults: those of ``Configuration.faults`` that lie in this exporter's section.
    """

    name: str
    plugin: str
    action: Literal["load", "disabled", "not_enabled"]
    reason: str
    settings: Tree
    pipeline: PipelineSettings
    found: FoundPlugin | None
    where: str
    faults: tuple[Fault, ...] = ()

    @property
    def origin(self) -> PluginOrigin | None:
        """The plugin and its distribution, when it is installed."""
        return self.found.origin if self.found is not None else None


@final
class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that configuration says of telemetry and exporters.

    Attributes:
        telemetry: the table ``[telemetry]``.
        exporters: every exporter that is installed or has a section, the ones to load in order.
        exporters_off: the kill switch: nothing is exported, also not by what code registers.
        faults: everything that is wrong; ``telemetry`` and ``exporters`` hold what is right.
        files: the files that were read.
        pipelines: the tables ``[exporters.NAME.pipeline]``, also of exporters that code registers.
        intervals: where ``pipeline.interval`` was set, by exporter.
        plugins: the installed plugins.
    """

    telemetry: TelemetrySettings
    exporters: tuple[ExporterPlan, ...]
    exporters_off: bool
    faults: tuple[Fault, ...]
    files: tuple[str, ...]
    pipelines: Mapping[str, PipelineSettings]
    intervals: Mapping[str, Setting]
    plugins: tuple[FoundPlugin, ...]

    def pipeline_for(self, name: str) -> PipelineSettings:
        """Core's settings for an exporter that code registers under this name."""
        return self.pipelines.get(name) or PipelineSettings()

    def pull_interval_fault(self, name: str, handle: ExporterHandle) -> Fault | None:
        """The fault of setting ``pipeline.interval`` for an exporter that is scraped."""
        setting = self.intervals.get(name)
        if setting is None or handle.interval is not None:
            return None
        problem = f"{name!r} is a pull exporter, whose cycles come from outside; leave the interval out"
        return Fault(setting.where, setting.key, problem)

    def check(self) -> None:
        """Raise ``ConfigurationError`` with every fault, when there is any."""
        if self.faults:
            raise ConfigurationError(self.faults)


def load_configuration(
    config: Mapping[str, Any] | Path | str | None = None,
    exporters: Sequence[str] | str | None = None,
    *,
    environ: Mapping[str, str],
    cwd: Path,
    arguments: Mapping[str, Any] | None = None,
    plugins: Sequence[FoundPlugin] | None = None,
) -> Configuration:
    """Read the configuration from all its sources; nothing is imported, and nothing is raised: see ``faults``.

    Precedence, highest first: environment, arguments in code, the file, defaults. Tables are merged key by key.

    Args:
        config: tables as in the file, which is read as well; or the path of a file that takes the place of the default one,
            which is the one that ``EVENTCORE_CONFIG`` names, else ``eventcore.toml`` in ``cwd`` where there is one.
        exporters: the exporters to load, in place of ``enabled``: names, ``"all"`` or ``"none"``.
        environ: the environment.
        cwd: the directory from which relative paths count.
        arguments: further tables from code, above ``config``.
        plugins: the installed plugins; ``None`` looks for them.
    """
    found = find_plugins() if plugins is None else tuple(plugins)
    path, fault = _file_to_read(config, environ, cwd)
    faults: list[Fault] = [fault] if fault is not None else []
    tree, file_faults = from_file(path, environ) if path is not None else ({}, [])
    faults += file_faults
    for tables in (config if isinstance(config, Mapping) else {}, arguments or {}):
        above, mapping_faults = from_mapping(tables)
        tree, faults = merge(tree, above), faults + mapping_faults
    above, environment_faults = from_environment(environ)
    tree, faults = merge(tree, above), faults + environment_faults

    faults += [
        unknown_key(node, name, name, ("telemetry", "exporters"))
        for name, node in tree.items()
        if name not in ("telemetry", "exporters")
    ]
    telemetry = _telemetry(_table(tree, "telemetry", faults), faults)
    section = _table(tree, "exporters", faults)
    selection = read_selection(section, exporters, environ, faults)
    sections = _sections(section, faults)
    pipelines, intervals = _pipelines(sections, faults)
    where = str(path if path is not None else CONFIG_FILE)
    plans = [
        ExporterPlan(
            name=choice.name,
            plugin=choice.plugin,
            action=choice.action,
            reason=choice.reason,
            settings={key: node for key, node in sections.get(choice.name, {}).items() if key not in ("plugin", "pipeline")},
            pipeline=pipelines.get(choice.name) or PipelineSettings(),
            found=choice.found,
            where=where,
            faults=tuple(fault for fault in faults if _concerns(fault, choice.name)),
        )
        for choice in plan_exporters(selection, sections, found, faults)
    ]
    return Configuration(
        telemetry=telemetry,
        exporters=tuple(plans),
        exporters_off=selection.off,
        faults=tuple(dict.fromkeys(replace(fault, where=where) if fault.where == NOWHERE else fault for fault in faults)),
        files=(str(path),) if path is not None else (),
        pipelines=pipelines,
        intervals=intervals,
        plugins=found,
    )


def _file_to_read(config: object, environ: Mapping[str, str], cwd: Path) -> tuple[Path | None, Fault | None]:
    if isinstance(config, str | Path):
        return cwd / config, None
    if config is not None and not isinstance(config, Mapping):
        problem = f"expected a mapping, or the path of a file, got {type(config).__name__}"
        return None, Fault(ARGUMENTS, "config", problem)
    if named := environ.get("EVENTCORE_CONFIG"):
        return cwd / named, None
    default = cwd / CONFIG_FILE
    return (default, None) if default.exists() else (None, None)


def _table(tree: Tree, name: str, faults: list[Fault]) -> Tree:
    node = tree.get(name, {})
    if isinstance(node, dict):
        return node
    faults.append(Fault(node.where, node.key, f"expected a table, got a {type(node.value).__name__}"))
    return {}


def _telemetry(tree: Tree, faults: list[Fault]) -> TelemetrySettings:
    values, found = convert_fields(annotations_of(TelemetrySettings), tree, "telemetry")
    faults += found
    return TelemetrySettings(**values)


def _sections(section: Tree, faults: list[Fault]) -> dict[str, Tree]:
    """The tables of single exporters."""
    sections: dict[str, Tree] = {}
    for name, node in section.items():
        if name in ("enabled", "disabled"):
            continue
        if isinstance(node, Setting):
            hint = suggest(name, ("enabled", "disabled")) or f"; expected a table, got a {type(node.value).__name__}"
            faults.append(Fault(node.where, node.key, f"{name!r} is no key{hint}"))
        elif (problem := exporter_name_problem(name)) is not None:
            faults.append(Fault(place(node, name)[0], f"exporters.{name}", problem))
        else:
            sections[name] = node
    return sections


def _pipelines(sections: Mapping[str, Tree], faults: list[Fault]) -> tuple[dict[str, PipelineSettings], dict[str, Setting]]:
    """The tables ``pipeline``, and where they set an interval."""
    annotations = annotations_of(PipelineSettings)
    pipelines: dict[str, PipelineSettings] = {}
    intervals: dict[str, Setting] = {}
    for name, section in sections.items():
        node = section.get("pipeline")
        if node is None:
            continue
        if isinstance(node, Setting):
            faults.append(Fault(node.where, node.key, f"expected a table, got a {type(node.value).__name__}"))
            continue
        values, found = convert_fields(annotations, node, f"exporters.{name}.pipeline")
        faults += found
        pipelines[name] = PipelineSettings(**values)
        if isinstance(interval := node.get("interval"), Setting):
            intervals[name] = interval
    return pipelines, intervals


def _concerns(fault: Fault, name: str) -> bool:
    variable = f"EVENTCORE_EXPORTERS__{name.upper()}__"
    return fault.key == f"exporters.{name}" or fault.key.startswith((f"exporters.{name}.", variable))
