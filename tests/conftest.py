"""Fixtures for every test: the real parts."""

from tests.real_parts.fixtures import ddapm, ddapm_server, prometheus_server, promtool_check, rotel

__all__ = ["ddapm", "ddapm_server", "prometheus_server", "promtool_check", "rotel"]
