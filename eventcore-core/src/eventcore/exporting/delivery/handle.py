"""The handle of an exporter: its checked hooks, callable by name."""

from __future__ import annotations

import inspect
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator, Mapping
from copy import copy
from types import MappingProxyType
from typing import Any, ClassVar, Final, final

import msgspec
import pluggy

from eventcore.exporting.context import Signal, Temporality
from eventcore.exporting.hookspecs import PROJECT, ExporterHooks
from eventcore.ground import LoopSlices, leave_to_parent

_MISSING: Final = object()
_COLLECTIONS: Final = (list, dict, set, deque, bytearray, defaultdict, Counter, OrderedDict)

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


class ExporterHandle:
    """A checked exporter. Each has its own pluggy manager, so that no exporter can stop or change the hooks of another.

    Attributes:
        exporter: the instance itself.
        origin: the plugin that it comes from; ``None`` when it comes from no plugin.
        registered: whether code has registered it. The configuration has not loaded it then.
        implemented: the names of its hooks.
        async_hooks: the names of those that are ``async def``: ``call`` returns their coroutine.
        kinds: what it exports, of ``KINDS`` and in that order.
        signals: the signals that it can take: it has hooks for them, and its attribute ``signals``
            names them.
        temporality: whether its counters and histograms are totals or differences.
        interval: seconds between metrics cycles; ``None`` for a pull exporter.
        packs_spans: whether ``export_spans`` takes spans that are not frozen yet.
        ended: why the exporter's process has ended, until it is started again; empty for an exporter
            without one.
        deaths: how often it has ended in a row.
        slices: the event loops that may do small parts of its work.
    """

    packs_spans: ClassVar[bool] = False
    ended: str = ""
    deaths: int = 0

    __slots__ = (
        "_as_made",
        "_hooks",
        "async_hooks",
        "exporter",
        "final_cycle",
        "implemented",
        "interval",
        "kinds",
        "origin",
        "registered",
        "signals",
        "slices",
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
        self._as_made = _copied(_attributes(exporter))
        self.slices = LoopSlices()
        self.origin = origin
        self.registered = False
        self.interval = interval
        self.implemented = frozenset(functions.keys() & HOOK_ARGUMENTS.keys())
        self.kinds = tuple(kind for kind in KINDS if f"export_{kind}" in self.implemented)
        can_take: tuple[Signal, ...] = tuple(getattr(exporter, "signals", ("metrics", "spans")))
        metrics: tuple[Signal, ...] = ("metrics",) if set(self.kinds) - {"spans"} else ()
        hooks_for: tuple[Signal, ...] = (*metrics, "spans") if "spans" in self.kinds else metrics
        self.signals: tuple[Signal, ...] = tuple(signal for signal in hooks_for if signal in can_take)
        self.final_cycle = bool(getattr(exporter, "final_cycle", False))
        self.temporality: Temporality = getattr(exporter, "temporality", "cumulative")

    def restore(self) -> None:
        """In a forked child: give the exporter the attributes back that it had when it was checked, before its ``start``.

        What it had later, such as connections, belongs to the parent and is never finalized here.
        """
        now = _attributes(self.exporter)
        leave_to_parent(now)
        for name in now.keys() - self._as_made.keys():
            object.__delattr__(self.exporter, name)
        for name, value in _copied(self._as_made).items():
            if now.get(name, _MISSING) is not value:
                object.__setattr__(self.exporter, name, value)

    def cpu_elsewhere(self) -> float:
        """Processor seconds that the exporter has used in other processes."""
        return 0.0

    def look_after(self) -> bool:
        """Look after the exporter's process, if it has one. Returns whether it has ended. Any thread; does not wait."""
        return False

    def call(self, hook: str, **arguments: Any) -> Any:
        """Call one hook with all the arguments of its specification; pluggy leaves out those that it does not take.

        Returns what the hook returns (the coroutine of an ``async def``), and ``None`` when the
        exporter does not implement it.
        """
        return getattr(self._hooks, hook)(**arguments)


def _attributes(exporter: object) -> dict[str, Any]:
    """The attributes of an object, in its dictionary and in the slots of its classes."""
    slots = [slot for cls in type(exporter).__mro__ for slot in vars(cls).get("__slots__", ()) if isinstance(slot, str)]
    found = {slot: getattr(exporter, slot, _MISSING) for slot in slots if not slot.startswith("__")}
    return {name: value for name, value in found.items() if value is not _MISSING} | dict(getattr(exporter, "__dict__", {}))


def _copied(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes, with copies of their collections: an exporter fills the lists that it has made in ``__init__``."""
    return {name: copy(value) if type(value) in _COLLECTIONS else value for name, value in attributes.items()}


def implementations_of(manager: pluggy.PluginManager) -> Iterator[tuple[str, pluggy.HookImpl]]:
    """The implementations of the plugin that is registered as ``exporter``, each with the name of its hook."""
    plugin = manager.get_plugin("exporter")
    for caller in manager.get_hookcallers(plugin) or ():
        for implementation in caller.get_hookimpls():
            yield caller.name, implementation
