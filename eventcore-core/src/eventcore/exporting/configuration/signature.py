"""The schema of a plugin's settings: the signature of the callable that its entry point names."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any, Final

import msgspec

from eventcore.errors import Fault, InvalidExporter
from eventcore.exporting.configuration.conversion import convert_fields, describe, is_configurable, is_secret
from eventcore.exporting.configuration.sources import Settings, below, names_in, nested, source_of
from eventcore.exporting.context import Secret
from eventcore.exporting.delivery.handle import PluginOrigin
from eventcore.ground import dataclass_fields, describe_error, text_of

CORE_KEYS: Final = ("plugin", "pipeline")
"""The keys of an exporter's section that belong to core; a plugin cannot have parameters of these names."""
_MASK: Final = "***"


def bind_settings(
    factory: Callable[..., Any],
    settings: Settings,
    *,
    name: str = "NAME",
    where: str = "eventcore.toml",
    origin: PluginOrigin | None = None,
) -> tuple[dict[str, Any], list[Fault]]:
    """Convert settings to the keyword arguments of a plugin's callable, each to the annotation of its parameter.

    Args:
        factory: the callable that the entry point names.
        settings: the section of the exporter without ``CORE_KEYS``, with paths that begin at the section.
        name: the name of the exporter, for the keys in faults.
        where: the file to name in the fault of a missing setting.
        origin: the plugin, to name in ``InvalidExporter``.

    Returns:
        The keyword arguments and every fault of the settings. Call ``factory`` only when there is no fault.

    Raises:
        InvalidExporter: the signature cannot serve as a schema, whatever the settings; the message lists every problem.
    """
    key = f"exporters.{name}"
    parameters = parameters_of(factory, origin)
    code_only = {name for name, parameter in parameters.items() if not is_configurable(parameter.annotation)}
    values, faults = convert_fields(
        {name: parameter.annotation for name, parameter in parameters.items() if name not in code_only},
        {path: setting for path, setting in settings.items() if path[0] not in code_only},
        key,
    )
    given = names_in(settings)
    for name, parameter in parameters.items():
        if name in code_only and name in given:
            problem = (
                f"{name!r} takes {describe(parameter.annotation)}, which only code can pass; "
                "leave it out and register the exporter in code"
            )
            faults.append(Fault(*source_of(below(settings, name), f"{key}.{name}"), problem))
        elif parameter.default is parameter.empty and name not in given:
            faults.append(Fault(where, f"{key}.{name}", f"it is missing; expected {describe(parameter.annotation)}"))
    return values, faults


def without_secrets(text: str, arguments: Mapping[str, Any], settings: Settings) -> str:
    """A plugin's own words about its arguments, with ``***`` in place of every secret among them.

    A text of the file that contains references to the environment is shown as it is written there.

    >>> without_secrets("invalid literal for int(): 's3cret'", {"token": Secret("s3cret")}, {})
    "invalid literal for int(): '***'"
    """
    pending: list[Any] = list(arguments.values())
    secrets: set[str] = set()
    for value in pending:
        if isinstance(value, Secret):
            secrets |= {value.reveal(), repr(value.reveal())[1:-1]}
        elif isinstance(value, Mapping):
            pending += value.values()
        elif isinstance(value, list | tuple | set | frozenset):
            pending += value
        elif isinstance(value, msgspec.Struct):
            pending += msgspec.structs.asdict(value).values()
        elif (fields := dataclass_fields(value.__class__)) is not None:
            pending += (getattr(value, field.name, None) for field in fields)
    # The longest first: one secret may contain another.
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, _MASK)
    for setting in settings.values():
        # A shorter value, such as a digit, would be found in words that are not about it.
        if setting.private and setting.shown != setting.value and isinstance(setting.value, str) and len(setting.value) > 3:
            text = text.replace(setting.value, str(setting.shown))
    return text


def masked(settings: Settings, factory: Callable[..., Any]) -> Mapping[str, Any]:
    """The settings as people may see them: secrets masked, and references to the environment as written in the file.

    A setting without a parameter is masked, too: its name could be a misspelt name of a secret.
    """
    try:
        parameters = parameters_of(factory, None)
    except InvalidExporter:
        parameters = {}
    secret = {name for name, each in parameters.items() if is_configurable(each.annotation) and is_secret(each.annotation)}
    public = parameters.keys() - secret
    shown = {path: setting.shown if path[0] in public or setting.is_table else _MASK for path, setting in settings.items()}
    return MappingProxyType(nested(shown))


def parameters_of(factory: Callable[..., Any], origin: PluginOrigin | None) -> dict[str, inspect.Parameter]:
    """The parameters of a plugin's callable, which are its settings, with resolved annotations.

    Raises:
        InvalidExporter: the signature cannot serve as a schema; the message lists every problem.
    """
    described = f"{origin or 'exporter'}, {getattr(factory, '__qualname__', type(factory).__name__)}"
    unresolved: BaseException | None = None
    try:
        plain_signature = inspect.signature(factory)
    except (TypeError, ValueError) as error:
        raise InvalidExporter(
            f"{described}: its signature cannot be read: {describe_error(error)}; expected typed parameters"
        ) from error
    # Without resolved annotations no setting can be converted, but the names and kinds of the parameters can be checked.
    try:
        parameters = _resolved(inspect.signature(factory, eval_str=True), factory)
    except BaseException as error:  # noqa: BLE001  # evaluating a plugin's annotations may raise anything
        parameters, unresolved = dict(plain_signature.parameters), error
    problems = [
        problem for parameter in parameters.values() for problem in _parameter_problems(parameter, unresolved is not None)
    ]
    if unresolved is not None:
        problems.append(
            f"an annotation cannot be resolved: {text_of(unresolved)}; expected names that the module itself imports or defines"
        )
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise InvalidExporter(f"{described}: its signature cannot be the schema of its settings:{lines}") from unresolved
    return parameters


def _resolved(signature: inspect.Signature, factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters, with quoted parts of annotations resolved, as in ``list["Endpoint"]``."""
    annotated = SimpleNamespace(
        __annotations__={
            name: parameter.annotation
            for name, parameter in signature.parameters.items()
            if parameter.annotation is not parameter.empty
        }
    )
    # `inspect.signature(eval_str=True)` evaluates an annotation that is a text as a whole, but not a text inside an annotation.
    module = sys.modules.get(getattr(factory, "__module__", ""))
    hints = typing.get_type_hints(annotated, globalns=dict(vars(module)) if module is not None else {}, include_extras=True)
    return {
        name: parameter.replace(annotation=hints.get(name, parameter.empty)) for name, parameter in signature.parameters.items()
    }


def _parameter_problems(parameter: inspect.Parameter, unresolved: bool) -> Iterator[str]:
    name = parameter.name
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        yield f"'{parameter}' takes settings that no one can check; expected a named parameter for each"
        return
    if parameter.kind == parameter.POSITIONAL_ONLY:
        yield f"{name!r} is positional-only; expected one that can be passed by name"
    if name in CORE_KEYS:
        yield f"{name!r} is a key of eventcore's own; expected another name"
    if parameter.annotation is parameter.empty:
        yield f"{name!r} has no annotation; expected one, for example '{name}: str'"
    elif not unresolved and parameter.default is parameter.empty and not is_configurable(parameter.annotation):
        expected = "expected a type that configuration can hold, or a default"
        yield f"{name!r} is required, but {describe(parameter.annotation)} cannot be set from configuration; {expected}"
