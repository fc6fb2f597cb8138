"""The handle of an exporter: its checked hooks, callable by name."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, final

import msgspec
import pluggy

from eventcore.exporting.context import Signal, Temporality
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
"""The hooks of the specification by name, each with the arguments that it may take."""


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
    """A checked exporter. Each has its own pluggy manager, so that no exporter can stop or change the hooks of another.

    Attributes:
        exporter: the instance itself.
        origin: the plugin that it comes from; ``None`` when it comes from no plugin.
        implemented: the names of its hooks.
        async_hooks: the names of those that are ``async def``: ``call`` returns their coroutine.
        kinds: what it exports, of ``KINDS`` and in that order.
        signals: the signals that it can take: it has hooks for them, and its attribute ``signals``
            names them.
        temporality: whether its counters and histograms are totals or differences.
        interval: seconds between metrics cycles; ``None`` for a pull exporter.
    """

    __slots__ = (
        "_hooks",
        "async_hooks",
        "exporter",
        "implemented",
        "interval",
        "kinds",
        "origin",
        "signals",
        "temporality",
    )

    def __init__(self, exporter: object, origin: PluginOrigin | None, interval: float | None) -> None:
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(ExporterHooks)
        manager.register(exporter, name="exporter")
        functions = {name: implementation.function for name, implementation in implementations_of(manager)}
        self._hooks = manager.hook
        # Looked up once: pluggy would answer only by walking its hook callers at every call.
        self.async_hooks = frozenset(name for name, function in functions.items() if inspect.iscoroutinefunction(function))
        self.exporter = exporter
        self.origin = origin
        self.interval = interval
        self.implemented = frozenset(functions.keys() & HOOK_ARGUMENTS.keys())
        self.kinds = tuple(kind for kind in KINDS if f"export_{kind}" in self.implemented)
        can_take: tuple[Signal, ...] = tuple(getattr(exporter, "signals", ("metrics", "spans")))
        metrics: tuple[Signal, ...] = ("metrics",) if set(self.kinds) - {"spans"} else ()
        hooks_for: tuple[Signal, ...] = (*metrics, "spans") if "spans" in self.kinds else metrics
        self.signals: tuple[Signal, ...] = tuple(signal for signal in hooks_for if signal in can_take)
        self.temporality: Temporality = getattr(exporter, "temporality", "cumulative")

    def call(self, hook: str, **arguments: Any) -> Any:
        """Call one hook with all the arguments of its specification; pluggy leaves out those that it does not take.

        Returns what the hook returns (the coroutine of an ``async def``), and ``None`` when the
        exporter does not implement it.
        """
        return getattr(self._hooks, hook)(**arguments)


def implementations_of(manager: pluggy.PluginManager) -> Iterator[tuple[str, pluggy.HookImpl]]:
    """The implementations of the plugin that is registered as ``exporter``, each with the name of its hook."""
    plugin = manager.get_plugin("exporter")
    for caller in manager.get_hookcallers(plugin) or ():
        for implementation in caller.get_hookimpls():
            yield caller.name, implementation
