"""Delivery: one pipeline for each exporter, and the manager of all of them. Other packages import from here."""

from eventcore.exporting.delivery.handle import ExporterHandle, PluginOrigin
from eventcore.exporting.delivery.manager import ExporterManager
from eventcore.exporting.delivery.pipeline import Pipeline
from eventcore.exporting.delivery.report import ExporterReport, ExporterState, PipelineStats, Report
from eventcore.exporting.delivery.settings import PipelineSettings
from eventcore.ground.threads import in_background
from eventcore.ground.yielding import LoopYielder

__all__ = [
    "ExporterHandle",
    "ExporterManager",
    "ExporterReport",
    "ExporterState",
    "LoopYielder",
    "Pipeline",
    "PipelineSettings",
    "PipelineStats",
    "PluginOrigin",
    "Report",
    "in_background",
]
