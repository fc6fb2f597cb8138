"""Which exporters are to be loaded, which are disabled and which are simply not enabled, decided without importing any."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, final

import msgspec
from msgspec.structs import replace

from eventcore.errors import Fault
from eventcore.exporting.configuration.conversion import convert, suggest
from eventcore.exporting.configuration.discovery import OFFICIAL, FoundPlugin, exporter_name_problem, how_to_install
from eventcore.exporting.configuration.sources import ARGUMENTS, ENVIRONMENT, Setting, Tree, place

_VARIABLE: Final = "EVENTCORE_EXPORTERS"
_WORDS: Final = ("all", "none")


@final
class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """What the configuration says about who is to be loaded.

    ``names`` is ``None`` for every installed exporter; it may hold ``"all"`` among others. ``source`` says where that stands.
    ``off`` is the kill switch.
    """

    names: tuple[str, ...] | None
    source: Setting | None
    disabled: tuple[str, ...]
    disabled_source: Setting | None
    off: bool


@final
class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The decision about one exporter."""

    name: str
    plugin: str
    action: Literal["load", "disabled", "not_enabled"]
    reason: str
    found: FoundPlugin | None


def read_selection(
    section: Tree, exporters: Sequence[str] | str | None, environ: Mapping[str, str], faults: list[Fault]
) -> Selection:
    """Read ``enabled`` and ``disabled``, and what stands above them: the argument of code, and the environment."""
    source = _setting(section.get("enabled"), "exporters.enabled", faults)
    if exporters is not None:
        source = Setting(value=exporters, where=ARGUMENTS, key="exporters", shown=exporters)
    if isinstance(above := section.get("enabled"), Setting) and above.where == ENVIRONMENT:
        source = above
    if environ.get(_VARIABLE):
        source = Setting(value=environ[_VARIABLE], where=ENVIRONMENT, key=_VARIABLE, text=True, shown=environ[_VARIABLE])
    names = _names(source, faults) if source is not None else None
    disabled_source = _setting(section.get("disabled"), "exporters.disabled", faults)
    disabled = _names(disabled_source, faults) if disabled_source is not None else ()
    return Selection(
        names=names,
        source=source,
        disabled=disabled,
        disabled_source=disabled_source,
        off=environ.get(_VARIABLE, "").strip() == "none",
    )


def plan_exporters(
    selection: Selection, sections: Mapping[str, Tree], plugins: Sequence[FoundPlugin], faults: list[Fault]
) -> list[Choice]:
    """Decide about every exporter that is named, installed or has a section; the ones to load come first and in their order."""
    return _Planner(selection, sections, plugins, faults).plan()


@final
class _Planner:
    def __init__(
        self, selection: Selection, sections: Mapping[str, Tree], plugins: Sequence[FoundPlugin], faults: list[Fault]
    ) -> None:
        self._selection = selection
        self._sections = {name: section for name, section in sections.items() if self._is_readable(name, section, faults)}
        self._faults = faults
        self._installed: dict[str, list[FoundPlugin]] = {}
        for plugin in plugins:
            self._installed.setdefault(plugin.name, []).append(plugin)
        self._unreadable = sections.keys() - self._sections.keys()

    def plan(self) -> list[Choice]:
        wanted = self._wanted()
        self._check_disabled()
        # A section that holds only `pipeline` may belong to an exporter that code registers, of which nothing is known here.
        described = [
            name
            for name, section in self._sections.items()
            if set(section) != {"pipeline"} or self._plugin(name) in self._installed
        ]
        rest = [name for name in dict.fromkeys([*self._installed, *described, *self._selection.disabled]) if name not in wanted]
        chosen = [self._wanted_choice(name) for name in wanted] + [self._other_choice(name) for name in rest]
        return [choice for choice in chosen if choice is not None]

    @staticmethod
    def _is_readable(name: str, section: Tree, faults: list[Fault]) -> bool:
        node = section.get("plugin")
        if node is None or (isinstance(node, Setting) and isinstance(node.value, str)):
            return True
        faults.append(Fault(*place(node, f"exporters.{name}.plugin"), "expected the name of a plugin, as a text"))
        return False

    def _plugin(self, name: str) -> str:
        node = self._sections.get(name, {}).get("plugin")
        return str(node.value) if isinstance(node, Setting) else name

    def _wanted(self) -> list[str]:
        names = ("all",) if self._selection.names is None else self._selection.names
        wanted: list[str] = []
        for name in names:
            wanted += self._everything() if name == "all" else [name]
        return [name for name in dict.fromkeys(wanted) if name not in self._unreadable]

    def _everything(self) -> list[str]:
        installed = [name for name, found in self._installed.items() if not all(plugin.core for plugin in found)]
        return installed + [name for name, section in self._sections.items() if "plugin" in section and name not in installed]

    def _wanted_choice(self, name: str) -> Choice | None:
        plugin = self._plugin(name)
        found = self._installed.get(plugin, [])
        if (disabled := self._disabled(name)) is not None:
            return disabled
        if len(found) == 1:
            return Choice(name=name, plugin=plugin, action="load", reason=self._why(name), found=found[0])
        self._faults.append(self._several(name, found) if found else self._unknown(name))
        return None

    def _other_choice(self, name: str) -> Choice | None:
        plugin = self._plugin(name)
        found = self._installed.get(plugin, [])
        if name in self._selection.disabled and not found and name not in self._sections:
            return None
        if (disabled := self._disabled(name)) is not None:
            return disabled
        if not found and (plugin not in OFFICIAL or self._selection.names is None):
            self._faults.append(self._unknown(name))
            return None
        reason = self._why_not(found)
        return Choice(
            name=name, plugin=plugin, action="not_enabled", reason=reason, found=found[0] if len(found) == 1 else None
        )

    def _disabled(self, name: str) -> Choice | None:
        plugin = self._plugin(name)
        match = next((each for each in (name, plugin) if each in self._selection.disabled), None)
        if match is None:
            return None
        found = self._installed.get(plugin, [])
        by = f"its plugin {plugin!r} is disabled" if match != name else "disabled"
        reason = f"{by} in {_shown_place(self._selection.disabled_source)}"
        return Choice(name=name, plugin=plugin, action="disabled", reason=reason, found=found[0] if len(found) == 1 else None)

    def _why(self, name: str) -> str:
        if self._selection.names is not None and name in self._selection.names:
            return f"enabled in {_shown_place(self._selection.source)}"
        return "installed, and all are enabled" if name in self._installed else "it has a section that names its plugin"

    def _why_not(self, found: Sequence[FoundPlugin]) -> str:
        if self._selection.names is None:
            return "it comes with eventcore-core, and is loaded only when 'enabled' names it"
        if not found:
            return f"not in {_shown_place(self._selection.source)}, and not installed"
        return f"not in {_shown_place(self._selection.source)}"

    def _several(self, name: str, found: Sequence[FoundPlugin]) -> Fault:
        where, key = self._named_at(name)
        brought_by = " and ".join(f"{plugin.distribution} {plugin.version}" for plugin in found)
        return Fault(
            where, key, f"{brought_by} each bring a plugin {self._plugin(name)!r}; uninstall all but one, or disable {name!r}"
        )

    def _unknown(self, name: str) -> Fault:
        where, key = self._named_at(name)
        plugin = self._plugin(name)
        if (command := how_to_install(plugin)) is not None:
            return Fault(where, key, f"the plugin {plugin!r} is not installed; install it: {command}")
        known = sorted({*self._installed, *OFFICIAL})
        not_installed = sorted(set(OFFICIAL) - set(self._installed))
        hints = "".join(f"; {other!r} comes with {how_to_install(other)}" for other in not_installed)
        installed = f"installed are {', '.join(sorted(self._installed))}" if self._installed else "none is installed"
        return Fault(where, key, f"there is no exporter plugin {plugin!r}{suggest(plugin, known)}; {installed}{hints}")

    def _named_at(self, name: str) -> tuple[str, str]:
        section = self._sections.get(name, {})
        if isinstance(node := section.get("plugin"), Setting):
            return node.where, node.key
        if self._selection.names is not None and name in self._selection.names:
            return place(self._selection.source, "exporters.enabled")
        if name in self._sections:
            return place(section, f"exporters.{name}")
        return "installed distributions", f"exporters.{name}"

    def _check_disabled(self) -> None:
        known = {*self._installed, *OFFICIAL, *self._sections}
        for name in self._selection.disabled:
            # A name of nothing that is installed disables nothing, which is fine unless something else was meant.
            if name not in known and (close := difflib.get_close_matches(name, self._installed, n=1)):
                where, key = place(self._selection.disabled_source, "exporters.disabled")
                self._faults.append(Fault(where, key, f"there is no exporter {name!r}; did you mean {close[0]!r}?"))


def _setting(node: Setting | Tree | None, key: str, faults: list[Fault]) -> Setting | None:
    if node is None or isinstance(node, Setting):
        return node
    where, _ = place(node, key)
    faults.append(Fault(where, key, "expected a list of names of exporters, got a table"))
    return None


def _names(source: Setting, faults: list[Fault]) -> tuple[str, ...]:
    """The names of a list, ``()`` for ``none`` and for what cannot be read, which is a fault."""
    value: Any = source.value
    if isinstance(value, str) and source.text and not value.lstrip().startswith("["):
        value = [name.strip() for name in value.split(",")]
    elif isinstance(value, str) and value in _WORDS:
        value = [value]
    names, wrong = convert(list[str], replace(source, value=value), source.key)
    if wrong:
        expected = 'expected a list of names of exporters, "all" or "none"'
        faults.append(Fault(source.where, source.key, f"{expected}, got {source.shown!r:.80}"))
        return ()
    if "none" in names and len(names) > 1:
        faults.append(Fault(source.where, source.key, "'none' stands alone; leave it out, or the others"))
    problems = [problem for name in names if name not in _WORDS and (problem := exporter_name_problem(name)) is not None]
    faults += [Fault(source.where, source.key, problem) for problem in problems]
    return tuple(dict.fromkeys(name for name in names if name == "all" or exporter_name_problem(name) is None))


def _shown_place(source: Setting | None) -> str:
    if source is None:
        return "the configuration"
    return source.key if source.where == ENVIRONMENT else f"{source.where} ({source.key})"
