"""An exporter of eventcore's metrics to InfluxDB: line protocol over HTTP."""

from eventcore_influx.exporter import InfluxExporter

__all__ = ["InfluxExporter"]
