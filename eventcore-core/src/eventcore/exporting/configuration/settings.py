"""The configuration: its sources merged, and core's part of it checked and converted."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, TypeAlias, final

import msgspec
from msgspec import Meta

from eventcore.errors import Fault
from eventcore.exporting.configuration.conversion import convert_struct, unknown_key
from eventcore.exporting.configuration.discovery import FoundPlugin, exporter_name_problem, find_plugins
from eventcore.exporting.configuration.distributions import Damage
from eventcore.exporting.configuration.selection import ExporterPlan, Selection
from eventcore.exporting.configuration.signature import CORE_KEYS
from eventcore.exporting.configuration.sources import (
    ARGUMENTS,
    EXPORTERS_VARIABLE,
    TABLES,
    Setting,
    Settings,
    below,
    from_environment,
    from_file,
    from_tables,
    is_mapping,
    merge,
    names_in,
    source_of,
)
from eventcore.exporting.configuration.standard import above_standard_variables
from eventcore.exporting.delivery.settings import PipelineSettings
from eventcore.ground import absolute_path, did_you_mean
from eventcore.recording.attributes import SamplerName, SpanLimits
from eventcore.recording.registry import boundaries_problem

CONFIG_FILE: Final = "eventcore.toml"
"""The file that is read from the working directory when nothing names another one."""

_LISTS: Final = ("enabled", "disabled")
_Scalar: TypeAlias = str | bool | int | float


@final
class TelemetrySettings(msgspec.Struct, frozen=True, kw_only=True):
    """The table ``[telemetry]``.

    Attributes:
        service_name: the resource attribute ``service.name``; empty for the default.
        resource: further attributes of the resource.
        traces_per_second: the most new traces recorded in each second; ``"all"`` for no limit.
        verbosity: how much is recorded.
        series_limit: the most series of one instrument; values of further series go into overflow series.
        total_series_limit: the most series of all instruments; left out, 10,000 or ``series_limit`` if that is more.
        histograms: boundaries of histograms by patterns of their names, in place of those that the code asks for; of several
            patterns that fit, the longest counts.
        span_limits: the most that one span keeps.
        db_client_duration: whether calls to a store's database are also recorded as ``db.client.operation.duration``, for
            dashboards that know OpenTelemetry's names.
        sampler: one of OpenTelemetry's samplers in place of ``traces_per_second``; empty for none.
        sampler_ratio: the part of all traces that a sampler with ``traceidratio`` records.
    """

    service_name: str = ""
    resource: dict[str, _Scalar | list[_Scalar]] = {}
    traces_per_second: Annotated[float, Meta(ge=0, le=1e9)] | Literal["all"] = 100.0
    verbosity: Literal["off", "normal", "verbose"] = "normal"
    series_limit: Annotated[int, Meta(ge=1, le=10_000_000)] = 2000
    total_series_limit: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    histograms: dict[str, list[float]] = {}
    span_limits: SpanLimits = SpanLimits()
    db_client_duration: bool = False
    sampler: SamplerName = ""
    sampler_ratio: Annotated[float, Meta(ge=0, le=1)] = 1.0


@final
class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the configuration says about telemetry and exporters.

    Attributes:
        telemetry: the table ``[telemetry]``, with defaults in place of faulty values.
        exporters: every exporter that is installed or has a section; those to load first, in their order.
        exporters_off: whether ``EVENTCORE_EXPORTERS=none``: nothing is exported, also not by exporters that code registers.
        faults: every fault that can be found without importing a plugin.
        tolerated: those of ``faults`` that do not stop an application: an unreadable file while ``exporters_off``.
        files: the file that was read, if any.
        settings: all settings, with paths from the top.
        pipelines: the tables ``[exporters.NAME.pipeline]`` by name, also of exporters that code registers.
        plugins: the installed plugins.
        damages: metadata of installed distributions in which plugins cannot be found, because it is damaged.
        ignored: the variables of OpenTelemetry that are ignored because their values do not fit, and why.
    """

    telemetry: TelemetrySettings
    exporters: tuple[ExporterPlan, ...]
    exporters_off: bool
    faults: tuple[Fault, ...]
    tolerated: tuple[Fault, ...]
    files: tuple[str, ...]
    settings: Settings
    pipelines: Mapping[str, PipelineSettings]
    plugins: tuple[FoundPlugin, ...]
    damages: tuple[Damage, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The file to name for a setting that is missing."""
        return self.files[0] if self.files else CONFIG_FILE

    def settings_of(self, name: str) -> Settings:
        """The plugin's own settings of an exporter, not yet converted."""
        section = below(self.settings, "exporters", name)
        return {path: setting for path, setting in section.items() if path and path[0] not in CORE_KEYS}

    def pipeline_for(self, name: str, defaults: Mapping[str, Any] = MappingProxyType({})) -> PipelineSettings:
        """Core's settings for an exporter.

        Keys that the configuration leaves out have the values of ``defaults``, the exporter's checked ``pipeline_defaults``,
        and else core's defaults.
        """
        settings = self.pipelines.get(name) or PipelineSettings()
        given = names_in(below(self.settings, "exporters", name, "pipeline"))
        converted = msgspec.convert(dict(defaults), PipelineSettings)
        return msgspec.structs.replace(settings, **{key: getattr(converted, key) for key in defaults if key not in given})

    def faults_of(self, name: str) -> tuple[Fault, ...]:
        """Those of ``faults`` that are in the section of one exporter, or in variables for it."""
        # The last character of each keeps the faults of `otel_backup` out of those of `otel`.
        key, variable = f"exporters.{name}.", f"{EXPORTERS_VARIABLE}__{name}__".upper()
        faults = self.faults
        return tuple(each for each in faults if f"{each.key}.".startswith(key) or each.key.upper().startswith(variable))

    def pull_interval_faults(self, name: str, interval: object) -> list[Fault]:
        """The fault of setting ``pipeline.interval`` for an exporter whose own ``interval`` is ``None``, if it is set."""
        setting = self.settings.get(("exporters", name, "pipeline", "interval"))
        if setting is None or interval is not None:
            return []
        problem = f"{name!r} is a pull exporter, whose cycles come from outside; leave the interval out"
        return [Fault(setting.where, setting.key, problem)]

    def process_faults(self, name: str, problem: str) -> list[Fault]:
        """The fault of setting ``pipeline.process`` for an exporter that cannot have it; none if ``problem`` is empty."""
        setting = self.settings.get(("exporters", name, "pipeline", "process"))
        where, key = (setting.where, setting.key) if setting is not None else (self.file, f"exporters.{name}.pipeline.process")
        return [Fault(where, key, problem)] if problem else []


def load_configuration(
    config: Mapping[str, Any] | Path | str | None = None,
    exporters: Sequence[str] | str | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    cwd: Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    plugins: Sequence[FoundPlugin] | None = None,
) -> Configuration:
    """Read all sources, merge them, and check and convert core's part.

    Nothing is imported. Faults are returned and not raised. Precedence, highest first: environment, arguments
    in code, the file, the standard variables of OpenTelemetry, defaults. Tables are merged key by key.

    Args:
        config: tables as in the file, which are merged over the file; or the path of a file to read in place
            of the default file, which is the one that ``EVENTCORE_CONFIG`` names, else ``eventcore.toml`` in
            ``cwd`` if it exists.
        exporters: the exporters to load, in place of ``enabled``: names, ``"all"`` or ``"none"``.
        environ: the environment; by default that of the process.
        cwd: the directory for relative paths; ``None`` for the working directory of the process.
        arguments: further tables from code, above ``config``.
        plugins: the installed plugins; ``None`` looks for them.
    """
    installed, damages = find_plugins() if plugins is None else (tuple(plugins), ())
    exporters_off = environ.get(EXPORTERS_VARIABLE, "").strip() == "none"
    path = _file_to_read(config, environ, cwd or Path(absolute_path() or ""))
    # The lowest source first, as `merge` takes them.
    sources: tuple[tuple[Settings | None, list[Fault]], ...] = (
        from_file(path, environ),
        _from_config(config),
        from_tables(arguments or {}),
        (_from_exporters(exporters), []),
        from_environment(environ),
    )
    settings, ignored = above_standard_variables(merge(*(source or {} for source, _ in sources)), environ)
    faults = [fault for _, found in sources for fault in found] + _unknown_tables(settings)
    # A source that cannot be read may disable any exporter.
    unreadable = next((found[0].where for source, found in sources if source is None), "")
    # The kill switch must work also when the file is broken: nothing is exported, so nothing in the file can matter.
    tolerated = sources[0][1] if sources[0][0] is None and exporters_off else []
    telemetry = _telemetry(_table(settings, "telemetry", faults), faults)
    if (exporters_value := settings.get(("exporters",))) is not None and not exporters_value.is_table:
        unreadable = unreadable or f"{exporters_value.where} ({exporters_value.key})"
    table = _table(settings, "exporters", faults)
    sections = _sections(table, faults)
    pipelines = {name: _pipeline_settings(name, section, faults) for name, section in sections.items()}
    plans = Selection(table, sections, installed, unreadable, faults).plan()
    return Configuration(
        telemetry=telemetry,
        exporters=tuple(plans),
        exporters_off=exporters_off,
        faults=tuple(dict.fromkeys(faults)),
        tolerated=tuple(tolerated),
        files=(str(path),) if path is not None else (),
        settings=settings,
        pipelines=pipelines,
        plugins=installed,
        damages=damages,
        ignored=tuple(ignored),
    )


def _unknown_tables(settings: Settings) -> list[Fault]:
    return [unknown_key(below(settings, name), name, name, TABLES) for name in names_in(settings) if name not in TABLES]


def _pipeline_settings(name: str, section: Settings, faults: list[Fault]) -> PipelineSettings:
    return convert_struct(PipelineSettings, _table(section, "pipeline", faults), f"exporters.{name}.pipeline", faults)


def _file_to_read(config: object, environ: Mapping[str, str], cwd: Path) -> Path | None:
    if isinstance(config, str | Path):
        return cwd / config
    if config is not None and not is_mapping(config):
        return None
    if named := environ.get("EVENTCORE_CONFIG"):
        return cwd / named
    return cwd / CONFIG_FILE if (cwd / CONFIG_FILE).exists() else None


def _from_config(config: object) -> tuple[Settings | None, list[Fault]]:
    if config is None or isinstance(config, str | Path):
        return {}, []
    if not is_mapping(config):
        problem = f"expected a mapping, or the path of a file, got {type(config).__name__}"
        return None, [Fault(ARGUMENTS, "config", problem)]
    return from_tables(config)


def _from_exporters(exporters: object) -> Settings:
    if exporters is None:
        return {}
    return {("exporters", "enabled"): Setting(value=exporters, where=ARGUMENTS, key="exporters", shown=exporters)}


def _table(settings: Settings, name: str, faults: list[Fault]) -> Settings:
    """The settings below ``name``; a value in place of the table is a fault."""
    table = below(settings, name)
    value = table.get(())
    if value is not None and not value.is_table:
        faults.append(Fault(value.where, value.key, f"expected a table, got a {type(value.value).__name__}"))
        del table[()]
    return table


def _telemetry(table: Settings, faults: list[Fault]) -> TelemetrySettings:
    """The table ``[telemetry]``; boundaries of histograms that do not fit are faults, and left out."""
    telemetry = convert_struct(TelemetrySettings, table, "telemetry", faults)
    fitting: dict[str, list[float]] = {}
    for pattern, boundaries in telemetry.histograms.items():
        if problem := boundaries_problem(boundaries):
            given = below(table, "histograms", pattern) or below(table, "histograms")
            faults.append(Fault(*source_of(given, f"telemetry.histograms.{pattern}"), problem))
        else:
            fitting[pattern] = boundaries
    return msgspec.structs.replace(telemetry, histograms=fitting)


def _sections(exporters: Settings, faults: list[Fault]) -> dict[str, Settings]:
    """The tables of single exporters."""
    sections: dict[str, Settings] = {}
    for name in names_in(exporters):
        if name in _LISTS:
            continue
        section = below(exporters, name)
        value = section.pop((), None) if len(section) > 1 else section.get(())
        if value is not None and not value.is_table:
            hint = did_you_mean(name, _LISTS) or f"; expected a table, got a {type(value.value).__name__}"
            faults.append(Fault(value.where, value.key, f"{name!r} is no key{hint}"))
        elif (problem := exporter_name_problem(name)) is not None:
            faults.append(Fault(source_of(section, name)[0], f"exporters.{name}", problem))
        else:
            sections[name] = section
    return sections
