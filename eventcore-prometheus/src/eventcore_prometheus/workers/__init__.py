"""Several processes of one service on one host: the process that holds the port answers for all of them."""

from eventcore_prometheus.workers.joining import join
from eventcore_prometheus.workers.workers import Workers

__all__ = ["Workers", "join"]
