"""Checks an exporter against the hook specification, because pluggy silently accepts many hooks that cannot work."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping
from math import inf
from types import BuiltinFunctionType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, Final, cast, get_args

import msgspec
import pluggy

from eventcore.errors import InvalidExporter
from eventcore.exporting.context import Signal, Temporality
from eventcore.exporting.delivery.handle import HOOK_ARGUMENTS, KINDS, ExporterHandle, PluginOrigin, implementations_of
from eventcore.exporting.delivery.settings import PipelineSettings
from eventcore.exporting.hookspecs import PROJECT, RENAMED_HOOKS, Exporter
from eventcore.exporting.logs import bounded_logger
from eventcore.ground import describe_error, did_you_mean, type_name

DEFAULT_INTERVAL: Final = 10.0
"""Seconds between the metrics cycles of an exporter without an attribute ``interval``."""

_SIGNALS: Final[tuple[str, ...]] = get_args(Signal)
_TEMPORALITIES: Final[tuple[str, ...]] = get_args(Temporality)


def check_exporter(exporter: object, origin: PluginOrigin | None = None) -> ExporterHandle:
    """Check an exporter against the hook specification.

    ``interval``, ``signals``, ``temporality``, ``final_cycle`` and ``pipeline_defaults`` are the only properties that
    are evaluated: other properties may be expensive, or open connections.

    Args:
        exporter: the instance that an application or a plugin made.
        origin: the plugin that made it, to name in messages.

    Raises:
        InvalidExporter: the exporter cannot work; the message lists every problem.
    """
    cause: BaseException | None = None
    try:
        if wrong_object := _wrong_object(exporter):
            problems = [wrong_object]
        else:
            interval = getattr(exporter, "interval", DEFAULT_INTERVAL)
            problems = _problems(exporter, interval)
            if not problems:
                return ExporterHandle(exporter, origin, None if interval is None else float(interval))
    except BaseException as error:  # noqa: BLE001  # an attribute of the exporter may raise anything; the cause is kept
        problems, cause = [f"it cannot be examined: {describe_error(error)}"], error
    cls = exporter if isinstance(exporter, type) else type(exporter)
    source = f"({origin}) " if origin is not None else ""
    lines = "".join(f"\n  - {problem}" for problem in problems)
    raise InvalidExporter(
        f"exporter {type_name(cls, qualified=True)} {source}does not fit the hook specification:{lines}"
    ) from cause


def log_replaced(name: str, present: ExporterHandle, new: ExporterHandle) -> None:
    """Say that an exporter takes the place of another one of its name, which may have been meant to stay."""
    if present.exporter is new.exporter:
        return
    classes = type_name(type(new.exporter), qualified=True), type_name(type(present.exporter), qualified=True)
    logger = bounded_logger(f"eventcore.exporters.{name}")
    if present.registered:
        logger.warning("%s, registered now, replaces %s, which is shut down; to keep both, give one of them a name=", *classes)
    else:
        # To replace the exporter of the configuration by one that is made in code is usual.
        logger.info("%s, registered now, replaces %s of the configuration, which is shut down", *classes)


def older_hooks(handle: ExporterHandle) -> str:
    """What an exporter uses of an older version of the hook specification, and what to do; empty when it uses nothing of it."""
    hooks = handle.implemented
    renamed = [f"{old!r}, now {new!r}" for old, new in RENAMED_HOOKS.items() if old in hooks and new not in hooks]
    if not renamed:
        return ""
    which = str(handle.origin or type_name(type(handle.exporter), qualified=True))
    return f"{which} implements the hook {', '.join(renamed)}, of an older contract; it still works: upgrade the plugin"


def _wrong_object(exporter: object) -> str:
    """What is wrong with an object that is not an instance with hooks; empty for an instance."""
    if inspect.isclass(exporter):
        return f"it is the class {exporter.__name__}; expected an instance of it: {exporter.__name__}(...)"
    if inspect.iscoroutine(exporter):
        exporter.close()
        return "it is a coroutine; expected the instance: a plugin's callable is not 'async def'"
    if isinstance(exporter, ModuleType):
        shown = f"the module {exporter.__name__!r}"
    elif isinstance(exporter, FunctionType | MethodType | BuiltinFunctionType):
        shown = f"the function {exporter.__name__!r}"
    elif exporter is None:
        shown = "None"
    else:
        return ""
    return f"it is {shown}; expected an instance of a class whose methods are marked with @hookimpl"


def _problems(exporter: object, interval: object) -> list[str]:
    name = type(exporter).__name__
    # Without a specification, pluggy finds the same hooks as later, but does not stop at the first
    # problem.
    probe = pluggy.PluginManager(PROJECT)
    probe.register(exporter, name="exporter")
    implementations = list(implementations_of(probe))
    problems = [*_hook_problems(name, implementations), *_unmarked(probe, exporter)]
    is_seconds = isinstance(interval, int | float) and interval is not True and 0 < interval < inf
    problems += _attribute_problems(name, exporter)
    if interval is not None and not is_seconds:
        problems.append(f"{name}.interval is {interval!r:.80}; expected seconds, more than 0, or None for a pull exporter")
    hooks = {hook for hook, _ in implementations}
    exporting = [f"export_{kind}" for kind in KINDS]
    if not problems and hooks.isdisjoint(exporting):
        found = "it implements hooks, but none that exports" if hooks else "it has no hook"
        problems.append(f"{name}: {found}; expected at least one of {', '.join(exporting)}, marked with @hookimpl")
    return problems


def _attribute_problems(name: str, exporter: object) -> Iterator[str]:
    signals: Any = getattr(exporter, "signals", _SIGNALS)
    if not _are_signals(signals):
        yield f"{name}.signals is {signals!r:.80}; expected a collection of 'metrics' and 'spans', or one of them"
    temporality: Any = getattr(exporter, "temporality", _TEMPORALITIES[0])
    if temporality not in _TEMPORALITIES:
        yield f"{name}.temporality is {temporality!r:.80}; expected one of {', '.join(map(repr, _TEMPORALITIES))}"
    defaults: Any = getattr(exporter, "pipeline_defaults", {})
    if not isinstance(defaults, Mapping):
        yield f"{name}.pipeline_defaults is {defaults!r:.80}; expected a mapping from keys of 'pipeline' to values"
        return
    try:
        msgspec.convert(dict(cast("Mapping[object, object]", defaults)), PipelineSettings)
    except msgspec.ValidationError as error:
        yield f"{name}.pipeline_defaults: {error}; expected keys and values of 'pipeline'"


def _are_signals(value: Any) -> bool:
    return (
        isinstance(value, Collection)
        and not isinstance(value, str)
        and all(each in _SIGNALS for each in cast("Collection[object]", value))
    )


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
    # A bound method hides its first parameter, so that a forgotten `self` shows only in the function.
    first = next(iter(inspect.signature(function.__func__).parameters), None) if isinstance(function, MethodType) else None
    if first in arguments:
        yield f"'self' is missing: the exporter itself would be passed as {first!r}; expected {expected}"
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
