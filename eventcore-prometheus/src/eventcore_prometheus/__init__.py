"""The plugin ``prometheus`` of eventcore: an exporter that serves metrics for Prometheus to scrape."""

from eventcore_prometheus.exporter import PrometheusExporter
from eventcore_prometheus.scraping import Scrapes

__all__ = ["PrometheusExporter", "Scrapes"]
