"""The signature of a plugin's callable is the schema of its settings."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any, Final

from eventcore.errors import Fault, InvalidExporter
from eventcore.exporting.configuration.conversion import (
    convert_fields,
    describe,
    is_configurable,
    is_secret,
    table_type,
    unknown_key,
)
from eventcore.exporting.configuration.sources import Setting, Tree, place, shown
from eventcore.exporting.delivery.handle import PluginOrigin

_TAKEN: Final = ("plugin", "pipeline")
_MASK: Final = "***"


def bind_settings(
    factory: Callable[..., Any],
    settings: Tree,
    *,
    name: str = "NAME",
    where: str = "eventcore.toml",
    origin: PluginOrigin | None = None,
) -> tuple[dict[str, Any], list[Fault]]:
    """Convert settings to the keyword arguments of a plugin's callable.

    Each parameter is converted on its own to its annotation, so that every fault is found. Text is coerced only where it
    comes from the environment.

    Args:
        factory: the callable that the entry point leads to.
        settings: the section of the exporter, without ``plugin`` and ``pipeline``.
        name: the name of the exporter, for keys.
        where: the file that a fault names for a setting that is missing.
        origin: the plugin, for its own faults.

    Returns:
        The keyword arguments, and every fault of the settings; call only when there is none.

    Raises:
        InvalidExporter: the signature itself cannot be a schema, whatever the settings; the message lists every problem.
    """
    key = f"exporters.{name}"
    parameters = _parameters(factory, origin)
    usable = {name: parameter.annotation for name, parameter in parameters.items() if is_configurable(parameter.annotation)}
    faults: list[Fault] = []
    given: Tree = {}
    for parameter_name, node in settings.items():
        parameter = parameters.get(parameter_name)
        if parameter is None:
            faults.append(unknown_key(node, f"{key}.{parameter_name}", parameter_name, usable))
        elif parameter_name in usable:
            given[parameter_name] = node
        else:
            faults.append(_only_from_code(parameter, node, f"{key}.{parameter_name}"))
    values, found = convert_fields(usable, given, key)
    faults += found
    faults += [
        Fault(where, f"{key}.{parameter.name}", f"it is missing; expected {describe(parameter.annotation)}")
        for parameter in parameters.values()
        if parameter.default is parameter.empty and parameter.name not in settings
    ]
    return values, faults


def masked(settings: Tree, factory: Callable[..., Any]) -> Mapping[str, Any]:
    """The settings as they were given, for people: secrets masked, references to the environment as they were written."""
    try:
        annotations = {name: parameter.annotation for name, parameter in _parameters(factory, None).items()}
    except InvalidExporter:
        annotations = {}
    return MappingProxyType(
        {name: _mask(annotations.get(name, inspect.Parameter.empty), node) for name, node in settings.items()}
    )


def _mask(annotation: Any, node: Setting | Tree) -> Any:
    # What no parameter describes could be a misspelt secret.
    if annotation is not inspect.Parameter.empty and (not is_configurable(annotation) or not is_secret(annotation)):
        return shown(node)
    if isinstance(node, Setting):
        return _MASK
    inner = table_type(annotation) if annotation is not inspect.Parameter.empty else None
    return {name: _mask(inner if inner is not None else inspect.Parameter.empty, child) for name, child in node.items()}


def _parameters(factory: Callable[..., Any], origin: PluginOrigin | None) -> dict[str, inspect.Parameter]:
    described = f"{origin or 'exporter'}, {getattr(factory, '__qualname__', type(factory).__name__)}"
    unresolved: Exception | None = None
    try:
        plain_signature = inspect.signature(factory)
    except (TypeError, ValueError) as error:
        raise InvalidExporter(f"{described}: its signature cannot be read: {error}; expected typed parameters") from error
    try:
        parameters = _resolved(inspect.signature(factory, eval_str=True), factory)
    except Exception as error:  # noqa: BLE001  # evaluating a plugin's annotations may raise anything
        parameters, unresolved = dict(plain_signature.parameters), error
    problems = [
        problem for parameter in parameters.values() for problem in _parameter_problems(parameter, unresolved is not None)
    ]
    if unresolved is not None:
        problems.append(
            f"an annotation cannot be resolved: {unresolved}; expected names that the module itself imports or defines"
        )
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise InvalidExporter(f"{described}: its signature cannot be the schema of its settings:{lines}") from unresolved
    return parameters


def _resolved(signature: inspect.Signature, factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters with what is still in quotes resolved, as in ``list["Endpoint"]``."""
    annotated = SimpleNamespace(
        __annotations__={
            name: parameter.annotation
            for name, parameter in signature.parameters.items()
            if parameter.annotation is not parameter.empty
        }
    )
    module = sys.modules.get(getattr(factory, "__module__", ""))
    hints = typing.get_type_hints(annotated, globalns=dict(vars(module)) if module is not None else {}, include_extras=True)
    return {
        name: parameter.replace(annotation=hints.get(name, parameter.empty)) for name, parameter in signature.parameters.items()
    }


def _parameter_problems(parameter: inspect.Parameter, unresolved: bool) -> list[str]:
    name = parameter.name
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return [f"'{parameter}' takes settings that no one can check; expected a named parameter for each"]
    problems: list[str] = []
    if parameter.kind == parameter.POSITIONAL_ONLY:
        problems.append(f"{name!r} is positional-only; expected one that can be passed by name")
    if name in _TAKEN:
        problems.append(f"{name!r} is a key of eventcore's own; expected another name")
    if parameter.annotation is parameter.empty:
        problems.append(f"{name!r} has no annotation; expected one, for example '{name}: str'")
    elif not unresolved and parameter.default is parameter.empty and not is_configurable(parameter.annotation):
        expected = "expected a type that configuration can hold, or a default"
        problems.append(
            f"{name!r} is required, but {describe(parameter.annotation)} cannot be set from configuration; {expected}"
        )
    return problems


def _only_from_code(parameter: inspect.Parameter, node: Setting | Tree, key: str) -> Fault:
    kind = describe(parameter.annotation)
    return Fault(
        *place(node, key),
        f"{parameter.name!r} takes {kind}, which only code can pass; leave it out and register the exporter in code",
    )
