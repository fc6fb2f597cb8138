"""The exporter that Prometheus scrapes: ``PrometheusExporter`` is the plugin ``prometheus`` of eventcore."""

from eventcore_prometheus.exporter import PrometheusExporter
from eventcore_prometheus.scraping import Scrapes

__all__ = ["PrometheusExporter", "Scrapes"]
