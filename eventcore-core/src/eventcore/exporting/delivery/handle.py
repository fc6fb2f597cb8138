"""The handle of an exporter: its hooks, callable through a plugin manager of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, final

import msgspec
import pluggy

from eventcore.exporting.hookspecs import PROJECT, ExporterHooks

KINDS: Final = ("counters", "gauges", "histograms", "spans")
"""What can be exported; the hook of each is ``export_`` and its name."""

HOOK_ARGUMENTS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        name: tuple(inspect.signature(hook).parameters)[1:]
        for name, hook in vars(ExporterHooks).items()
        if inspect.isfunction(hook) and not name.startswith("_")
    }
)
"""The hooks of the specification, each with the arguments that it may take."""


@final
class PluginOrigin(msgspec.Struct, frozen=True):
    """Which plugin of which installed distribution an exporter comes from."""

    plugin: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"plugin {self.plugin!r} of {self.distribution} {self.version}"


@final
class ExporterHandle:
    """A checked exporter, callable through a pluggy manager of its own, so that no exporter can stop or change another's hooks.

    Attributes:
        exporter: the instance itself.
        origin: the plugin that it comes from; ``None`` when it comes from no plugin.
        implemented: the names of its hooks.
        kinds: what it exports, of ``KINDS`` and in that order.
        interval: seconds between metrics cycles; ``None`` for a pull exporter.
    """

    __slots__ = ("_async", "_hooks", "exporter", "implemented", "interval", "kinds", "origin")

    def __init__(self, exporter: object, origin: PluginOrigin | None, interval: float | None) -> None:
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(ExporterHooks)
        manager.register(exporter, name="exporter")
        self._hooks = manager.hook
        self._async = frozenset(
            name for name, implementation in implementations_of(manager) if _is_async(implementation.function)
        )
        self.exporter = exporter
        self.origin = origin
        self.interval = interval
        self.implemented = frozenset(name for name, _ in implementations_of(manager) if name in HOOK_ARGUMENTS)
        self.kinds = tuple(kind for kind in KINDS if f"export_{kind}" in self.implemented)

    def is_async(self, hook: str) -> bool:
        """Whether the hook is ``async def``, so that ``call`` returns its coroutine."""
        return hook in self._async

    def call(self, hook: str, **arguments: Any) -> Any:
        """Call one hook with all the arguments of its specification; those that it does not take are left out.

        Returns what the hook returns (the coroutine of an ``async def``), and ``None`` when the exporter does not implement it.
        """
        return getattr(self._hooks, hook)(**arguments)


def implementations_of(manager: pluggy.PluginManager) -> Iterator[tuple[str, pluggy.HookImpl]]:
    plugin = manager.get_plugin("exporter")
    for caller in manager.get_hookcallers(plugin) or ():
        for implementation in caller.get_hookimpls():
            yield caller.name, implementation


def _is_async(function: Callable[..., object]) -> bool:
    return inspect.iscoroutinefunction(function)
