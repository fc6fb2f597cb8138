"""The catalogue: every instrument that eventcore records about itself. Here telemetry and event store meet."""

from eventcore.catalogue.active_streams import ActiveStreams
from eventcore.catalogue.backend import BackendInstruments
from eventcore.catalogue.commands import CommandInstruments, CommandOutcome, CommandSeries
from eventcore.catalogue.exporters import observe_exporters
from eventcore.catalogue.observed_backend import ObservedBackend
from eventcore.catalogue.progress import ProjectionProgress, ProjectionState
from eventcore.catalogue.projections import ProjectionInstruments, ProjectionSeries
from eventcore.catalogue.rows import CATALOGUE, Row
from eventcore.catalogue.store import Operation, StoreInstruments

__all__ = [
    "CATALOGUE",
    "ActiveStreams",
    "BackendInstruments",
    "CommandInstruments",
    "CommandOutcome",
    "CommandSeries",
    "ObservedBackend",
    "Operation",
    "ProjectionInstruments",
    "ProjectionProgress",
    "ProjectionSeries",
    "ProjectionState",
    "Row",
    "StoreInstruments",
    "observe_exporters",
]
