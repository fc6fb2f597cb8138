"""The resource that is sent: what core knows of the process, and what the exporter's settings add."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from eventcore.exporting import Attributes


def complete(core: Attributes, own: Attributes) -> Attributes:
    """The attributes of core, with those of the exporter's own settings in place of attributes of the same name."""
    sdk = {
        "telemetry.sdk.name": "eventcore",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": version_of("eventcore-core"),
    }
    return tuple({**sdk, **dict(core), **dict(own)}.items())


def version_of(distribution: str) -> str:
    """The version of an installed distribution; ``unknown`` when it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
