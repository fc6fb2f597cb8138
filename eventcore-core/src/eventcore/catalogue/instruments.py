"""The metrics of one store, together."""

from __future__ import annotations

from typing import final

from eventcore.catalogue.backend import BackendInstruments
from eventcore.catalogue.commands import CommandInstruments
from eventcore.catalogue.projections import ProjectionInstruments
from eventcore.catalogue.store import StoreInstruments
from eventcore.stores.base import Backend
from eventcore.stores.values import SCHEMA_VERSION
from eventcore.telemetry import Telemetry


@final
class Instruments:
    """The metrics of one store, by the part that records them."""

    def __init__(self, telemetry: Telemetry, name: str, backend: Backend) -> None:
        self.backend = BackendInstruments(telemetry, name, backend)
        self.store = StoreInstruments(telemetry, name, backend.system, SCHEMA_VERSION, self.backend.outages)
        self.commands = CommandInstruments(telemetry, name, self.backend.command_gave_up)
        self.projections = ProjectionInstruments(telemetry, name)

    def closed(self) -> None:
        """Remove the series that describe an open store."""
        self.store.closed()
        self.backend.closed()
        self.projections.closed()
