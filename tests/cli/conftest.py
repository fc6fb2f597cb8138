"""Plugins that are really installed."""

from tests.plugins.fixtures import plugin_site

__all__ = ["plugin_site"]
