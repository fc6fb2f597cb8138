"""The stack of ``examples/observability-stack`` without containers, and the tests of its rules, alerts and dashboards."""
