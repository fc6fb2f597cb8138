"""Settings from the standard variables of OpenTelemetry that concern every exporter: the lowest source above the defaults.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ defines them. Deployments set them for all
programs at once, so that a value that does not fit is a warning and never an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, get_args
from urllib.parse import unquote

from eventcore.exporting.configuration.sources import ENVIRONMENT, Setting, SettingPath, Settings, merge
from eventcore.ground import shown
from eventcore.recording.attributes import SamplerName

_SAMPLERS: Final = tuple(name for name in get_args(SamplerName) if name)
_LARGEST: Final = 1_000_000
# Which limits a variable sets. Of two variables for one limit, the later one counts.
_LIMITS: Final = {
    "OTEL_ATTRIBUTE_COUNT_LIMIT": ("attributes", "event_attributes", "link_attributes"),
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": ("text",),
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": ("attributes",),
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": ("text",),
    "OTEL_SPAN_EVENT_COUNT_LIMIT": ("events",),
    "OTEL_SPAN_LINK_COUNT_LIMIT": ("links",),
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": ("event_attributes",),
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT": ("link_attributes",),
}


def above_standard_variables(settings: Settings, environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """``settings`` of all other sources, merged above the standard variables; the texts say which of these are ignored."""
    standard, problems = from_standard_variables(environ)
    if ("telemetry", "traces_per_second") in settings:
        # A rate and a sampler are two answers to one question, so that the higher source counts.
        standard.pop(("telemetry", "sampler"), None)
    return merge(standard, settings), problems


def from_standard_variables(environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """Take service name, resource, sampler and limits of spans; the texts say which variables are ignored, and why.

    A variable that is empty counts as not set.
    """
    settings: Settings = {}
    problems: list[str] = []

    def take(variable: str, value: Any, *path: str) -> None:
        where: SettingPath = ("telemetry", *path)
        settings[where] = Setting(value=value, where=ENVIRONMENT, key=variable, private=True, shown=value)

    given = {name: text.strip() for name, text in environ.items() if name.startswith("OTEL_") and text.strip()}
    _take_resource(given, take, problems)
    _take_sampler(given, take, problems)
    for variable, limits in _LIMITS.items():
        if (text := given.get(variable)) is None:
            continue
        if not (text.isascii() and text.isdigit()) or len(text) > 18:
            problems.append(_ignored(variable, text, "a whole number, 0 or more"))
            continue
        for limit in limits:
            take(variable, min(int(text), _LARGEST), "span_limits", limit)
    return settings, problems


def _take_resource(given: Mapping[str, str], take: Any, problems: list[str]) -> None:
    name = given.get("OTEL_SERVICE_NAME")
    if name is not None:
        take("OTEL_SERVICE_NAME", name, "service_name")
    variable = "OTEL_RESOURCE_ATTRIBUTES"
    attributes: dict[str, str] = {}
    for item in filter(str.strip, given.get(variable, "").split(",")):
        key, equals, value = item.partition("=")
        try:
            key, value = unquote(key.strip(), errors="strict"), unquote(value.strip(), errors="strict")
        except UnicodeDecodeError:
            equals = ""
        if not equals or not key:
            # As the specification asks, the whole variable is ignored: the part before the fault may be another's.
            problems.append(_ignored(variable, item, "key=value pairs separated by commas, percent-encoded"))
            return
        attributes[key] = value
    service = attributes.pop("service.name", "")
    if service and name is None:
        take(variable, service, "service_name")
    for key, value in attributes.items():
        take(variable, value, "resource", key)


def _take_sampler(given: Mapping[str, str], take: Any, problems: list[str]) -> None:
    variable, argument = "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"
    if (name := given.get(variable)) is None:
        return
    if name.lower() not in _SAMPLERS:
        problems.append(_ignored(variable, name, f"one of {', '.join(_SAMPLERS)}"))
        return
    take(variable, name.lower(), "sampler")
    if name.lower().endswith("traceidratio") and (text := given.get(argument)) is not None:
        try:
            ratio = float(text)
        except ValueError:
            ratio = -1.0
        if 0 <= ratio <= 1:
            take(argument, ratio, "sampler_ratio")
        else:
            problems.append(_ignored(argument, text, "a number from 0 to 1; every trace is sampled"))


def _ignored(variable: str, text: str, expected: str) -> str:
    return f"{variable} is ignored: got {shown(text)}, expected {expected}"
