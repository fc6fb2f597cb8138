"""Delivery: one pipeline for each exporter, and the manager of all of them. Other packages import from here."""

from eventcore.exporting.delivery.handle import ExporterHandle, PluginOrigin
from eventcore.exporting.delivery.manager import ExporterManager
from eventcore.exporting.delivery.pipeline import Pipeline
from eventcore.exporting.delivery.report import ExporterReport, ExporterState, PipelineStats, Report
from eventcore.exporting.delivery.settings import PipelineSettings

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
