"""Which exporters are loaded, which are disabled and which are not enabled. Nothing is imported to decide it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, final

import msgspec
from msgspec.structs import replace

from eventcore.errors import Fault
from eventcore.exporting.configuration.conversion import convert
from eventcore.exporting.configuration.discovery import OFFICIAL, FoundPlugin, exporter_name_problem, how_to_install
from eventcore.exporting.configuration.sources import ENVIRONMENT, Setting, Settings, below, names_in, source_of
from eventcore.ground import did_you_mean

_WORDS: Final = ("all", "none")


@final
class ExporterPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The decision about one exporter.

    Attributes:
        name: the exporter's name.
        plugin: the name of the plugin that makes it.
        action: ``"load"``; or ``"disabled"`` or ``"not_enabled"``, whose plugin is never imported.
        reason: the reason, for people.
        found: the installed plugin; ``None`` when no distribution, or more than one, brings a plugin of this name.
    """

    name: str
    plugin: str
    action: Literal["load", "disabled", "not_enabled"]
    reason: str
    found: FoundPlugin | None


@final
class _Names(msgspec.Struct, frozen=True):
    """The value of ``enabled`` or ``disabled``.

    Attributes:
        names: the names; empty for ``"none"``, and when the value cannot be read, which is a fault.
        where: the source of the value; ``None`` when it is not set.
        key: the key of the value.
        readable: whether the value is a list of names.
    """

    names: tuple[str, ...] = ()
    where: str | None = None
    key: str = ""
    readable: bool = True

    def __str__(self) -> str:
        return self.key if self.where == ENVIRONMENT else f"{self.where} ({self.key})"


@final
class Selection:
    """Plans every exporter that is installed, named or has a section.

    Args:
        exporters: the table ``[exporters]``.
        sections: the tables of single exporters in it.
        plugins: the installed plugins.
        unreadable: the part of the configuration that could not be read, such as the file; empty when all could. The part may
            have disabled any exporter, so none is loaded.
        faults: where faults are added.
    """

    def __init__(
        self,
        exporters: Settings,
        sections: Mapping[str, Settings],
        plugins: Sequence[FoundPlugin],
        unreadable: str,
        faults: list[Fault],
    ) -> None:
        self._faults = faults
        self._enabled = _read_names(exporters, "enabled", faults)
        self._disabled = _read_names(exporters, "disabled", faults)
        # A faulty `disabled` leaves the sections complete, but whatever is unreadable may disable any exporter.
        self._sections_incomplete = bool(unreadable)
        self._unreadable = unreadable if self._disabled.readable else unreadable or str(self._disabled)
        self._sections = {name: section for name, section in sections.items() if self._has_readable_plugin(name, section)}
        self._faulty = sections.keys() - self._sections.keys()
        self._installed: dict[str, list[FoundPlugin]] = {}
        for plugin in plugins:
            self._installed.setdefault(plugin.name, []).append(plugin)

    def plan(self) -> list[ExporterPlan]:
        """The plans, the exporters to load first and in their order."""
        self._check_disabled()
        enabled = self._enabled_names()
        # A section that holds only `pipeline` may belong to an exporter that code registers later.
        described = [
            name
            for name, section in self._sections.items()
            if names_in(section) != ["pipeline"] or self._plugin(name) in self._installed
        ]
        # A dict and not a set: the order of `enabled` is the order in which exporters are loaded.
        disabled = [name for name in self._disabled.names if name != "all"]
        names = dict.fromkeys([*enabled, *self._installed, *described, *disabled])
        plans = [self._plan(name, enabled=name in enabled) for name in names]
        return [plan for plan in plans if plan is not None]

    def _has_readable_plugin(self, name: str, section: Settings) -> bool:
        node = below(section, "plugin")
        if not node or (set(node) == {()} and isinstance(node[()].value, str)):
            return True
        self._faults.append(Fault(*source_of(node, f"exporters.{name}.plugin"), "expected the name of a plugin, as a text"))
        return False

    def _plugin(self, name: str) -> str:
        setting = self._sections.get(name, {}).get(("plugin",))
        return str(setting.value) if setting is not None else name

    def _enabled_names(self) -> list[str]:
        if self._unreadable:
            return []
        names: list[str] = []
        for name in ("all",) if self._enabled.where is None else self._enabled.names:
            names += self._all_names() if name == "all" else [name]
        return [name for name in names if name not in self._faulty]

    def _all_names(self) -> list[str]:
        installed = [name for name, found in self._installed.items() if not all(plugin.core for plugin in found)]
        return installed + [
            name for name, section in self._sections.items() if ("plugin",) in section and name not in installed
        ]

    def _plan(self, name: str, *, enabled: bool) -> ExporterPlan | None:
        plugin = self._plugin(name)
        found = self._installed.get(plugin, [])
        single = found[0] if len(found) == 1 else None
        # First of all: a disabled plugin is never imported, even if `enabled` names an exporter of it.
        disabled_name = next((each for each in (name, plugin, "all") if each in self._disabled.names), None)
        if disabled_name is not None:
            if not enabled and not found and name not in self._sections:
                return None
            by = f"its plugin {plugin!r} is disabled" if disabled_name == plugin != name else "disabled"
            return ExporterPlan(name=name, plugin=plugin, action="disabled", reason=f"{by} in {self._disabled}", found=single)
        if enabled and single is not None:
            return ExporterPlan(name=name, plugin=plugin, action="load", reason=self._why(name), found=single)
        if enabled and found:
            self._faults.append(self._several(name, found))
            return None
        if not found and (enabled or plugin not in OFFICIAL or (self._enabled.where is None and not self._unreadable)):
            # The plugin of a section may be named in the part of the configuration that cannot be read.
            if not self._sections_incomplete or ("plugin",) in self._sections.get(name, {}):
                self._faults.append(self._unknown(name))
            return None
        return ExporterPlan(name=name, plugin=plugin, action="not_enabled", reason=self._why_not(found), found=single)

    def _why(self, name: str) -> str:
        if name in self._enabled.names:
            return f"enabled in {self._enabled}"
        return "installed, and all are enabled" if name in self._installed else "it has a section that names its plugin"

    def _why_not(self, found: Sequence[FoundPlugin]) -> str:
        if self._unreadable:
            return f"{self._unreadable} cannot be read, and may disable it"
        if self._enabled.where is None:
            return "it comes with eventcore-core, and is loaded only when 'enabled' names it"
        return f"not in {self._enabled}{'' if found else ', and not installed'}"

    def _several(self, name: str, found: Sequence[FoundPlugin]) -> Fault:
        brought_by = " and ".join(f"{plugin.distribution} {plugin.version}" for plugin in found)
        problem = f"{brought_by} each bring a plugin {self._plugin(name)!r}; uninstall all but one, or disable {name!r}"
        return Fault(*self._named_at(name), problem)

    def _unknown(self, name: str) -> Fault:
        plugin = self._plugin(name)
        if (command := how_to_install(plugin)) is not None:
            problem = f"the plugin {plugin!r} is not installed; install it: {command}"
        else:
            hint = did_you_mean(plugin, sorted({*self._installed, *OFFICIAL}))
            installed = f"installed are {', '.join(sorted(self._installed))}" if self._installed else "none is installed"
            missing = sorted(set(OFFICIAL) - set(self._installed))
            to_install = "".join(f"; {other!r} comes with {how_to_install(other)}" for other in missing)
            problem = f"there is no exporter plugin {plugin!r}{hint}; {installed}{to_install}"
        return Fault(*self._named_at(name), problem)

    def _named_at(self, name: str) -> tuple[str, str]:
        section = self._sections.get(name, {})
        if (setting := section.get(("plugin",))) is not None:
            return setting.where, setting.key
        if self._enabled.where is not None and name in self._enabled.names:
            return self._enabled.where, self._enabled.key
        if section:
            return source_of(section, f"exporters.{name}")
        return "installed distributions", f"exporters.{name}"

    def _check_disabled(self) -> None:
        names = {*self._installed, *OFFICIAL, *self._sections}
        for name in self._disabled.names:
            # A file may disable an exporter that is not installed here. Only a name that looks misspelt is a fault.
            if name != "all" and name not in names and (hint := did_you_mean(name, self._installed)):
                problem = f"there is no exporter {name!r}{hint}"
                self._faults.append(Fault(str(self._disabled.where), self._disabled.key, problem))


def _read_names(exporters: Settings, key: str, faults: list[Fault]) -> _Names:
    node = below(exporters, key)
    if not node:
        return _Names()
    where, key = source_of(node, f"exporters.{key}")
    setting = node.get(()) if len(node) == 1 else None
    if setting is not None:
        node = {(): replace(setting, value=_as_list(setting))}
    names, wrong = convert(list[str], node, key)
    if wrong:
        got = "a table" if setting is None or setting.is_table else f"{setting.shown!r:.80}"
        faults.append(Fault(where, key, f'expected a list of names of exporters, "all" or "none", got {got}'))
        return _Names((), where, key, readable=False)
    if "none" in names and len(names) > 1:
        faults.append(Fault(where, key, "'none' cannot be combined with other names; leave out 'none', or the others"))
    problems = {name: exporter_name_problem(name) for name in names if name not in _WORDS}
    faults += [Fault(where, key, problem) for problem in problems.values() if problem is not None]
    valid = [name for name in names if name == "all" or (name != "none" and problems[name] is None)]
    return _Names(tuple(dict.fromkeys(valid)), where, key)


def _as_list(setting: Setting) -> Any:
    """The value, with a list in place of the word ``all`` or ``none`` and of names with commas in a variable."""
    value = setting.value
    if isinstance(value, str) and setting.text and not value.lstrip().startswith("["):
        return [name.strip() for name in value.split(",")]
    return [value] if isinstance(value, str) and value in _WORDS else value
