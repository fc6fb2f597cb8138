"""An exporter of eventcore's metrics to StatsD and DogStatsD, over UDP or a Unix socket."""

from eventcore_statsd.exporter import StatsdExporter

__all__ = ["StatsdExporter"]
