"""``eventcore plugins NAME``: one exporter with its settings, where each comes from, and how it does in a running process."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from concurrent.futures import wait
from typing import Any, Final, get_type_hints

import msgspec

from eventcore.cli.listing import Listing, Row, list_exporters
from eventcore.cli.live import LiveState, find_live_state
from eventcore.cli.output import Output, count_faults
from eventcore.errors import Fault
from eventcore.exporting.configuration import Configuration, LoadedExporters, ReadyExporter, load_exporters
from eventcore.exporting.configuration.conversion import describe, is_configurable, is_secret
from eventcore.exporting.configuration.discovery import FoundPlugin
from eventcore.exporting.configuration.signature import masked, parameters_of
from eventcore.exporting.configuration.sources import Settings, below, names_in, source_of
from eventcore.exporting.delivery.settings import PipelineSettings
from eventcore.ground import describe_error, did_you_mean, in_background

_DEFAULT: Final = "default"
_MASK: Final = "***"
# Seconds that importing the plugin of an exporter that is not enabled may take.
_IMPORT_TIMEOUT: Final = 10.0


class SettingRow(msgspec.Struct, frozen=True, kw_only=True):
    """One setting of an exporter.

    Attributes:
        name: its key in the section of the exporter.
        type: what may be set, in words.
        default: its value when nothing sets it, as text; ``None`` when it must be set.
        value: its present value as people may see it: secrets are ``***``.
        source: the file, ``environment``, or ``default``.
        key: the dotted key or the variable that sets it; empty for a default.
    """

    name: str
    type: str
    default: str | None
    value: Any
    source: str = _DEFAULT
    key: str = ""

    @property
    def origin(self) -> str:
        """Where the value comes from, for people."""
        if self.source == _DEFAULT and self.default is None:
            return "MISSING"
        return f"{self.source} ({self.key})" if self.key else self.source


class Details(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``eventcore plugins NAME --json``."""

    files: tuple[str, ...]
    faults: tuple[Fault, ...]
    exporter: Row
    interval: float | None = None
    temporality: str | None = None
    settings: tuple[SettingRow, ...] = ()
    settings_problem: str = ""
    pipeline: tuple[SettingRow, ...] = ()
    standard_variables: tuple[str, ...] = ()
    live: LiveState


def show_details(output: Output, configuration: Configuration, name: str) -> int:
    """Print everything that is known of one exporter, and return the exit code."""
    loaded = load_exporters(configuration)
    listing = list_exporters(configuration, loaded)
    row = next((row for row in listing.exporters if row.name == name), None)
    if row is None:
        names = [row.name for row in listing.exporters]
        problem = f"there is no exporter {name!r}{did_you_mean(name, names)}; known are {', '.join(names)}"
        return output.fail(2, problem)
    details = _details(configuration, loaded, listing, row)
    code = 2 if listing.faults else int(row.state in ("failed", "loading"))
    return output.answer(code, details, lambda: _print(output, details), count_faults(listing.faults))


def _details(configuration: Configuration, loaded: LoadedExporters, listing: Listing, row: Row) -> Details:
    ready = next((ready for ready in loaded.ready if ready.name == row.name), None)
    plan = next((plan for plan in configuration.exporters if plan.name == row.name), None)
    settings: tuple[SettingRow, ...] = ()
    problem = row.reason
    if plan is not None and plan.found is not None and row.state not in ("disabled", "loading"):
        factory, problem = _factory(plan.found)
        if factory is not None:
            try:
                settings = _settings(row.name, factory, configuration.settings_of(row.name))
            except Exception as error:  # noqa: BLE001  # the signature is the plugin's, and may be no schema
                problem = describe_error(error)
    return Details(
        files=listing.files,
        faults=listing.faults,
        exporter=row,
        interval=_interval(ready) if ready is not None else None,
        temporality=ready.handle.temporality if ready is not None else None,
        settings=settings,
        settings_problem=problem if not settings else "",
        pipeline=_pipeline(configuration, row.name, ready),
        # By name only: a value may hold a password.
        standard_variables=tuple(sorted(name for name, text in os.environ.items() if name.startswith("OTEL_") and text)),
        live=find_live_state(row.name, [one.handle.exporter for one in loaded.ready]),
    )


def _interval(ready: ReadyExporter) -> float | None:
    """Seconds between the cycles as they would run; ``None`` for a pull exporter, which no setting changes."""
    own = ready.handle.interval
    return None if own is None else ready.pipeline.interval or own


def _factory(plugin: FoundPlugin) -> tuple[Callable[..., Any] | None, str]:
    """Import a plugin, which may hang: the callable, or ``None`` and why not."""
    importing = in_background(plugin.load, f"eventcore-import-{plugin.name}")
    wait([importing], _IMPORT_TIMEOUT)
    if not importing.done():
        return None, f"importing {plugin.value} takes more than {_IMPORT_TIMEOUT:g} s"
    error = importing.exception()
    return (importing.result(), "it has no settings") if error is None else (None, describe_error(error))


def _settings(exporter: str, factory: Callable[..., Any], settings: Settings) -> tuple[SettingRow, ...]:
    """A row for each parameter of the plugin, in their order.

    Raises:
        InvalidExporter: the signature cannot serve as a schema.
    """
    shown = masked(settings, factory)
    given = names_in(settings)
    rows: list[SettingRow] = []
    for name, parameter in parameters_of(factory, None).items():
        configurable = is_configurable(parameter.annotation)
        secret = configurable and is_secret(parameter.annotation)
        note = " (only from code)" if not configurable else " (secret)" if secret else ""
        required = parameter.default is inspect.Parameter.empty
        default = None if required else _MASK if secret and parameter.default else repr(parameter.default)
        source, key = source_of(below(settings, name), f"exporters.{exporter}.{name}") if name in given else (_DEFAULT, "")
        value = shown[name] if name in given else default
        kind = f"{describe(parameter.annotation)}{note}"
        rows.append(SettingRow(name=name, type=kind, default=default, value=value, source=source, key=key))
    return tuple(rows)


def _pipeline(configuration: Configuration, name: str, ready: ReadyExporter | None) -> tuple[SettingRow, ...]:
    """A row for each of core's settings of an exporter."""
    given = below(configuration.settings, "exporters", name, "pipeline")
    own: Mapping[str, Any] = getattr(ready.handle.exporter, "pipeline_defaults", {}) if ready is not None else {}
    current = ready.pipeline if ready is not None else configuration.pipeline_for(name)
    plain = PipelineSettings()
    rows: list[SettingRow] = []
    for key, annotation in get_type_hints(PipelineSettings, include_extras=True).items():
        source, where, value = _DEFAULT, "", getattr(current, key)
        if key in names_in(given):
            source, where = source_of(below(given, key), f"exporters.{name}.pipeline.{key}")
        elif key in own:
            source = "default of the exporter"
        elif key == "interval" and ready is not None:
            source, value = "default of the exporter", ready.handle.interval
        default = repr(getattr(plain, key))
        rows.append(SettingRow(name=key, type=describe(annotation), default=default, value=value, source=source, key=where))
    return tuple(rows)


def _print(output: Output, details: Details) -> None:
    output.faults(details.faults)
    row = details.exporter
    lines = [("exporter", row.name), ("plugin", f"{row.plugin}, of {row.distribution or '-'} {row.version or ''}".rstrip())]
    lines += [("state", f"{row.state}: {row.reason}"), ("exports", ", ".join(row.kinds) or "-")]
    if row.kinds:
        lines.append(("cycles", "when it is scraped" if details.interval is None else f"every {details.interval:g} s"))
        lines.append(("values", details.temporality or "-"))
    lines += details.live.lines()
    for title, text in lines:
        output.line(f"{title:<13} {text}")
    output.line()
    output.line(f"Settings in [exporters.{row.name}]{f': {details.settings_problem}' if details.settings_problem else ''}")
    _print_settings(output, details.settings)
    if details.standard_variables:
        names = ", ".join(details.standard_variables)
        output.line(f"OpenTelemetry's variables that are set: {names}.\nA setting from 'default' may follow one of them.\n")
    output.line(f"Settings in [exporters.{row.name}.pipeline]")
    _print_settings(output, details.pipeline)


def _print_settings(output: Output, rows: tuple[SettingRow, ...]) -> None:
    titles = ["setting", "value", "default", "from", "type"]
    table = [[row.name, _text(row), "(required)" if row.default is None else row.default, row.origin, row.type] for row in rows]
    output.table(titles, table)


def _text(row: SettingRow) -> str:
    if row.value is None and row.default is None:
        return "-"
    # The text of a default is its `repr` already.
    return str(row.value) if row.source == _DEFAULT and isinstance(row.value, str) else repr(row.value)
