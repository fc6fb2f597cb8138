"""Exporters with one planted fault each, and the check of the kit that is meant to catch it.

``pytest tests/testing/exporters/planted/checks.py`` runs the whole contract on each of them; ``test_planted_faults.py`` runs
the checks that are meant, and ``python -m tests.testing.exporters.planted`` prints the table.
"""

from tests.testing.exporters.planted import cycles, lifecycle, metrics, outages, refusals, spans
from tests.testing.exporters.planted.running import run
from tests.testing.exporters.planted.table import PLANTED

__all__ = ["PLANTED", "cycles", "lifecycle", "metrics", "outages", "refusals", "run", "spans"]
