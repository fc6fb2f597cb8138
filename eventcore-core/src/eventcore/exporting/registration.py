"""Checks an exporter against the hook specification, because pluggy silently accepts many hooks that cannot work."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from math import isfinite
from types import FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Final

import pluggy

from eventcore.errors import InvalidExporter
from eventcore.exporting.delivery.handle import HOOK_ARGUMENTS, KINDS, ExporterHandle, PluginOrigin, implementations_of
from eventcore.exporting.hookspecs import PROJECT, Exporter
from eventcore.ground import did_you_mean

DEFAULT_INTERVAL: Final = 10.0
"""Seconds between the metrics cycles of an exporter without an attribute ``interval``."""


def check_exporter(exporter: object, origin: PluginOrigin | None = None) -> ExporterHandle:
    """Check an exporter against the hook specification.

    ``interval`` is the only property that is evaluated: other properties may be expensive, or open connections.

    Args:
        exporter: the instance that an application or a plugin made.
        origin: the plugin that made it, to name in messages.

    Raises:
        InvalidExporter: the exporter cannot work; the message lists every problem.
    """
    if (problem := _not_an_instance(exporter)) is not None:
        raise InvalidExporter(_message(exporter, origin, [problem]))
    name = type(exporter).__name__
    # Without a specification, pluggy finds the same hooks as later, but does not stop at the first problem.
    probe = pluggy.PluginManager(PROJECT)
    try:
        probe.register(exporter, name="exporter")
        implementations = list(implementations_of(probe))
        problems = [
            *_hook_problems(name, implementations),
            *_unmarked(probe, exporter),
        ]
        interval, interval_problem = _interval(exporter)
    except Exception as error:
        raise InvalidExporter(
            _message(exporter, origin, [f"its attributes cannot be read: {type(error).__name__}: {error}"])
        ) from error
    if interval_problem:
        problems.append(interval_problem)
    if not problems and not any(f"export_{kind}" in {hook for hook, _ in implementations} for kind in KINDS):
        problems.append(_nothing_exported(name, bool(implementations)))
    if problems:
        raise InvalidExporter(_message(exporter, origin, problems))
    try:
        return ExporterHandle(exporter, origin, interval)
    except pluggy.PluginValidationError as error:
        raise InvalidExporter(_message(exporter, origin, [str(error)])) from error


def _message(exporter: object, origin: PluginOrigin | None, problems: list[str]) -> str:
    cls = exporter if inspect.isclass(exporter) else type(exporter)
    source = f"({origin}) " if origin is not None else ""
    lines = "".join(f"\n  - {problem}" for problem in problems)
    return f"exporter {cls.__module__}.{cls.__qualname__} {source}does not fit the hook specification:{lines}"


def _not_an_instance(exporter: object) -> str | None:
    if inspect.isclass(exporter):
        return f"it is the class {exporter.__name__}; expected an instance of it: {exporter.__name__}(...)"
    if isinstance(exporter, ModuleType):
        return (
            f"it is the module {exporter.__name__!r}; expected an instance of a class whose methods are marked with @hookimpl"
        )
    if exporter is None or isinstance(exporter, FunctionType | MethodType) or inspect.isbuiltin(exporter):
        shown = "None" if exporter is None else f"the function {exporter.__name__!r}"
        return f"it is {shown}; expected an instance of a class whose methods are marked with @hookimpl"
    if inspect.iscoroutine(exporter):
        exporter.close()
        return "it is a coroutine; expected the instance: a plugin's callable is not 'async def'"
    return None


def _nothing_exported(name: str, has_hooks: bool) -> str:
    hooks = ", ".join(f"export_{kind}" for kind in KINDS)
    found = "it implements hooks, but none that exports" if has_hooks else "it has no hook"
    return f"{name}: {found}; expected at least one of {hooks}, marked with @hookimpl"


def _hook_problems(name: str, implementations: list[tuple[str, pluggy.HookImpl]]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for hook, implementation in implementations:
        method = f"{name}.{implementation.function.__name__}"
        arguments = HOOK_ARGUMENTS.get(hook)
        if arguments is None:
            if not implementation.optionalhook:
                yield (
                    f"{method}: there is no hook {hook!r}{did_you_mean(hook, HOOK_ARGUMENTS)};"
                    f" the hooks are {', '.join(HOOK_ARGUMENTS)}"
                    " (a hook of a newer eventcore-core carries @hookimpl(optionalhook=True))"
                )
            continue
        if (other := seen.setdefault(hook, method)) != method:
            yield f"{method}: {other} implements the hook {hook!r} too; expected one method for each hook"
        yield from (f"{method}: {problem}" for problem in _function_problems(hook, arguments, implementation))


def _function_problems(hook: str, arguments: tuple[str, ...], implementation: pluggy.HookImpl) -> Iterator[str]:
    function = implementation.function
    if implementation.wrapper or implementation.hookwrapper:
        yield "it is a wrapper; expected a plain hook: an exporter has nothing to wrap"
        return
    plain = inspect.unwrap(function)
    if any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in (function, plain)):
        yield "it is a generator, so nothing of its body would run; expected 'def' or 'async def' without 'yield'"
    expected = f"{hook}({', '.join(('self', *arguments))}), of which any arguments may be left out"
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:
        yield f"it takes no 'self'; expected {expected}"
        return
    if isinstance(function, MethodType) and _first_parameter(function) in arguments:
        yield f"'self' is missing: the exporter itself would be passed as {_first_parameter(function)!r}; expected {expected}"
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            stars = "*" if parameter.kind == parameter.VAR_POSITIONAL else "**"
            yield f"'{stars}{parameter.name}' would never be given anything; expected {expected}"
        elif parameter.name not in arguments:
            yield f"there is no argument {parameter.name!r}{did_you_mean(parameter.name, arguments)}; expected {expected}"
        elif parameter.kind == parameter.KEYWORD_ONLY:
            yield f"the argument {parameter.name!r} is keyword-only and would never be passed; expected {expected}"
        elif parameter.default is not parameter.empty:
            yield f"the argument {parameter.name!r} has a default and would never be passed; expected {expected}, without it"


def _first_parameter(method: MethodType) -> str | None:
    return next(iter(inspect.signature(method.__func__).parameters), None)


def _unmarked(probe: pluggy.PluginManager, exporter: object) -> Iterator[str]:
    name = type(exporter).__name__
    for hook in HOOK_ARGUMENTS:
        attribute = inspect.getattr_static(exporter, hook, None)
        if attribute is None or attribute is vars(Exporter).get(hook):
            continue
        if isinstance(attribute, FunctionType | MethodType | staticmethod | classmethod | MemberDescriptorType):
            if probe.parse_hookimpl_opts(exporter, hook) is None:
                yield f"{name}.{hook}: it has the name of a hook, but not the marker; expected @hookimpl above it"
        else:
            kind = type(attribute).__name__
            yield f"{name}.{hook}: it has the name of a hook, but is a {kind}; expected a method with @hookimpl"


def _interval(exporter: object) -> tuple[float | None, str | None]:
    interval = getattr(exporter, "interval", DEFAULT_INTERVAL)
    if interval is None:
        return None, None
    if isinstance(interval, int | float) and not isinstance(interval, bool) and isfinite(interval) and interval > 0:
        return float(interval), None
    expected = "expected seconds, more than 0, or None for a pull exporter"
    return DEFAULT_INTERVAL, f"{type(exporter).__name__}.interval is {interval!r:.80}; {expected}"
