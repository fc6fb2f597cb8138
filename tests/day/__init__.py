"""A day of a collector's troubles in two minutes: what arrives is compared with what every process says of it, to the span.

Several processes record under load, fork children, and export over OTLP. Meanwhile the collector is down, slow, refusing,
restarting and partly accepting, and half of the children are killed.
"""
