"""The catalogue: every instrument that eventcore records about itself. Here telemetry and event store meet."""

from eventcore.catalogue.active_streams import ActiveStreams
from eventcore.catalogue.commands import CommandInstruments, CommandSeries, Outcome
from eventcore.catalogue.exporters import show_exporters
from eventcore.catalogue.rows import CATALOGUE, Row
from eventcore.catalogue.store import Operation, StoreInstruments

__all__ = [
    "CATALOGUE",
    "ActiveStreams",
    "CommandInstruments",
    "CommandSeries",
    "Operation",
    "Outcome",
    "Row",
    "StoreInstruments",
    "show_exporters",
]
