"""Describes the machine on which the figures were measured."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any

__all__ = ["caveat", "machine"]

_COMPARED = ("eventcore-core", "prometheus-client", "opentelemetry-sdk")


def machine() -> dict[str, Any]:
    """Cores, load, interpreter and the versions of the compared packages."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_1_min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {name: version(name) for name in _COMPARED},
    }


def caveat(before: dict[str, Any], after: dict[str, Any]) -> str:
    """The machine in one sentence, with the caveat for readers."""
    versions = ", ".join(f"{name} {number}" for name, number in before["versions"].items())
    return (
        f"Machine: {before['cores']} cores, load {before['load_1_min']} before and {after['load_1_min']} after, "
        f"{before['python']}, {before['system']}; {versions}.\n"
        "Times hold for this machine and this run only. Compare the ratios: they were measured in alternating rounds."
    )
