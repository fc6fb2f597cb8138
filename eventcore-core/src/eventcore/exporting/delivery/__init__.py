"""Delivery: one pipeline for each exporter, and the manager of all of them. Other packages import from here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventcore.exporting.delivery.handle import ExporterHandle, PluginOrigin
from eventcore.exporting.delivery.manager import ExporterManager
from eventcore.exporting.delivery.report import ExporterReport, ExporterState, PipelineStats, Report
from eventcore.exporting.delivery.settings import PipelineSettings
from eventcore.ground import when_used

if TYPE_CHECKING:
    from eventcore.exporting.delivery.pipeline import Pipeline

__all__ = [
    "ExporterHandle",
    "ExporterManager",
    "ExporterReport",
    "ExporterState",
    "Pipeline",
    "PipelineSettings",
    "PipelineStats",
    "PluginOrigin",
    "Report",
]

# An application without exporters never imports what runs them.
__getattr__ = when_used(__name__, Pipeline="eventcore.exporting.delivery.pipeline")
