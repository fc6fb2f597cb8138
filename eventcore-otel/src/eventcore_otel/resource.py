"""The resource that is sent: what core knows of the process, what detectors find, and what the exporter's settings add."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from eventcore.exporting import Attributes, AttributeValue, ExporterContext
from eventcore_otel.settings import Settings

_GROUP: Final = "opentelemetry_resource_detector"
# Seconds in which all detectors must return; the exporter starts without those that are late.
_TIMEOUT: Final = 2.0
_CONTAINER_ID: Final = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
# Begins the name that core and the SDK give a service without one.
_UNNAMED: Final = "unknown_service"
_SCALARS: Final = (str, bool, int, float)


class SentResource(NamedTuple):
    """A resource, and where the meaning of its names is described, or empty."""

    attributes: Attributes
    schema_url: str = ""


def complete(context: ExporterContext, settings: Settings) -> SentResource:
    """The attributes of detectors, replaced by those of core, and these by those of the exporter's own settings."""
    detected = _detect(settings.detectors, context)
    sdk = {
        "telemetry.sdk.name": "eventcore",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": version_of("eventcore-core"),
    }
    merged = {**dict(detected.attributes), **sdk, **dict(context.resource.attributes), **dict(settings.resource)}
    if str(merged.get("service.name", _UNNAMED)).startswith(_UNNAMED) and (name := _name_of_sdk()):
        context.logger.info("no service name is configured: %r is taken from OpenTelemetry's tracer provider", name)
        merged["service.name"] = name
    return SentResource(tuple(merged.items()), detected.schema_url)


def _name_of_sdk() -> str:
    """The service name of the tracer provider that is set for the process: one trace shows one name for one service."""
    from opentelemetry import trace

    # `get_tracer_provider` would load a provider that a variable names.
    resource = getattr(trace._TRACER_PROVIDER, "resource", None)  # noqa: SLF001  # as the comment says
    attributes = getattr(resource, "attributes", None)
    name = cast("Mapping[str, object]", attributes).get("service.name") if isinstance(attributes, Mapping) else None
    return name if isinstance(name, str) and not name.startswith(_UNNAMED) else ""


def version_of(distribution: str) -> str:
    """The version of an installed distribution; ``unknown`` when it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"


def container_id(files: Sequence[str] = ("/proc/self/cgroup", "/proc/self/mountinfo")) -> str:
    """The id of the container that this process runs in, as the files of Linux show it; empty outside of one."""
    for file in files:
        try:
            lines = Path(file).read_text(errors="replace").splitlines()
        except OSError:
            continue
        for line in lines:
            # Of all mounts, those of a container's own host name and addresses are in the container's folder.
            if "mountinfo" in file and not any(name in line for name in ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")):
                continue
            if found := _CONTAINER_ID.search(line):
                return found[0]
    return ""


def _detect(names: Sequence[str], context: ExporterContext) -> SentResource:
    """What the named detectors find, each in a thread of its own; earlier names lose to later ones."""
    if not names:
        return SentResource(())
    installed = {point.name: point for point in entry_points(group=_GROUP)}
    if "*" in names:
        names = [*installed, *([] if "container" in installed else ["container"])]
    detectors: list[_Detector] = []
    for name in names:
        if name not in installed and name != "container":
            known = ", ".join(sorted({*installed, "container"}))
            context.logger.warning("resource detector %r is not installed; known are %s", name, known)
        else:
            detectors.append(_Detector(name, installed.get(name)))
    deadline = time.monotonic() + _TIMEOUT
    attributes: dict[str, AttributeValue] = {}
    schemas: set[str] = set()
    for detector in detectors:
        if not detector.done.wait(max(0.0, deadline - time.monotonic())):
            context.logger.warning("resource detector %r has not returned within %g s and is left out", detector.name, _TIMEOUT)
        elif detector.error is not None:
            problem = f"{type(detector.error).__name__}: {detector.error}"
            context.logger.warning("resource detector %r failed and is left out: %s", detector.name, problem)
        else:
            attributes |= detector.attributes
            schemas |= {detector.schema_url} - {""}
    # Two different ones leave open which one holds, as in the SDK's merging of resources.
    return SentResource(tuple(attributes.items()), schemas.pop() if len(schemas) == 1 else "")


class _Detector:
    """One detector, running in a daemon thread: one that hangs must not hold up the exporter or the interpreter's exit."""

    def __init__(self, name: str, point: Any) -> None:
        self.name = name
        self.attributes: dict[str, AttributeValue] = {}
        self.schema_url = ""
        self.error: BaseException | None = None
        self.done = threading.Event()
        self._point = point
        threading.Thread(target=self._run, name=f"eventcore-otel-detector-{name}", daemon=True).start()

    def _run(self) -> None:
        try:
            if self._point is None:
                self.attributes = {"container.id": found} if (found := container_id()) else {}
            else:
                resource = self._point.load()().detect()
                self.attributes = dict(_plain(resource.attributes))
                self.schema_url = resource.schema_url if isinstance(resource.schema_url, str) else ""
        except BaseException as error:  # noqa: BLE001  # whatever a detector raises, the others count
            self.error = error
        finally:
            self.done.set()


def _plain(attributes: Mapping[Any, Any]) -> Iterable[tuple[str, AttributeValue]]:
    for name, value in attributes.items():
        if isinstance(value, _SCALARS):
            yield str(name), value
        elif isinstance(value, (list, tuple)):
            yield str(name), tuple(map(str, cast("Sequence[object]", value)))
        elif value is not None:
            yield str(name), str(value)
