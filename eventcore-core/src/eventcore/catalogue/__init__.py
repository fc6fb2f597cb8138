"""The catalogue: every metric that eventcore records about itself. Here telemetry and event store meet."""

from eventcore.catalogue.active_streams import ActiveStreams
from eventcore.catalogue.backend import BackendInstruments
from eventcore.catalogue.commands import CommandInstruments, CommandSeries
from eventcore.catalogue.exporters import observe_exporters
from eventcore.catalogue.instruments import Instruments
from eventcore.catalogue.metrics import CATALOGUE, CommandOutcome, Operation, ProjectionState
from eventcore.catalogue.observed_backend import ObservedBackend
from eventcore.catalogue.progress import ProjectionProgress
from eventcore.catalogue.projections import ProjectionInstruments, ProjectionSeries
from eventcore.catalogue.store import StoreInstruments

__all__ = [
    "CATALOGUE",
    "ActiveStreams",
    "BackendInstruments",
    "CommandInstruments",
    "CommandOutcome",
    "CommandSeries",
    "Instruments",
    "ObservedBackend",
    "Operation",
    "ProjectionInstruments",
    "ProjectionProgress",
    "ProjectionSeries",
    "ProjectionState",
    "StoreInstruments",
    "observe_exporters",
]
