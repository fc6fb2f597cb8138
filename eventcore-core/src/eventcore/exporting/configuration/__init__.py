"""Configuration: from its sources to checked exporters, in one direction.

``sources`` reads the file, the tables in code and the environment into flat maps and merges them. ``settings`` checks and
converts core's part of the merged map, ``selection`` decides which exporters are loaded, and ``loading`` imports their plugins,
converts their settings (``signature``) and makes them. ``conversion`` converts single values for all of them.
"""

from eventcore.exporting.configuration.discovery import OFFICIAL, FoundPlugin, all_damages, exporter_name, how_to_install
from eventcore.exporting.configuration.distributions import Damage
from eventcore.exporting.configuration.loading import (
    AbsentExporter,
    ExporterLoader,
    FailedExporter,
    LoadedExporters,
    ReadyExporter,
    load_exporters,
)
from eventcore.exporting.configuration.selection import ExporterPlan
from eventcore.exporting.configuration.settings import Configuration, TelemetrySettings, load_configuration

__all__ = [
    "OFFICIAL",
    "AbsentExporter",
    "Configuration",
    "Damage",
    "ExporterLoader",
    "ExporterPlan",
    "FailedExporter",
    "FoundPlugin",
    "LoadedExporters",
    "ReadyExporter",
    "TelemetrySettings",
    "all_damages",
    "exporter_name",
    "how_to_install",
    "load_configuration",
    "load_exporters",
]
