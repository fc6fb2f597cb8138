"""The Python of ``examples/observability-stack``: the traffic, and the source of its rules, alerts and dashboards."""
