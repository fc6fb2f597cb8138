"""Plugins that are really installed, and a directory with a configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.exporting.projects import Project
from tests.plugins.fixtures import plugin_site

__all__ = ["plugin_site", "project"]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)
