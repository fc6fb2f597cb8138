"""The sources of settings: a TOML file, tables in code and environment variables.

Each source becomes a flat map from the path of a setting to its value and origin. ``merge`` puts the maps above each other.
Nothing is checked or converted here except that a source can be read.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeGuard, final

import msgspec

from eventcore.errors import Fault

ENVIRONMENT: Final = "environment"
ARGUMENTS: Final = "arguments"
EXPORTERS_VARIABLE: Final = "EVENTCORE_EXPORTERS"
"""The variable that names the exporters to load."""
TABLES: Final = ("telemetry", "exporters", "health")
"""The tables. ``health`` is checked and used by the store, which knows what it means."""
# Each without its last letter, so that EVENTCORE_EXPORTER=... is reported and not overlooked.
_PREFIXES: Final = tuple(f"EVENTCORE_{table.upper()[:-1]}" for table in TABLES)
_VARIABLES: Final = (
    f"{EXPORTERS_VARIABLE}, {EXPORTERS_VARIABLE}__NAME__KEY, EVENTCORE_TELEMETRY__KEY or EVENTCORE_HEALTH__KEY (two "
    "underscores between the parts)"
)
# These look like settings, and are read elsewhere: by `EVENTCORE_EXPORTERS` below, and by the command `eventcore health`.
_NO_SETTINGS: Final = (EXPORTERS_VARIABLE, "EVENTCORE_HEALTH_TOKEN")
_REFERENCE: Final = re.compile(r"\$\$\{|\$\{([^}]*)\}")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

SettingPath: TypeAlias = tuple[str, ...]
"""The parts of a dotted key, as ``("exporters", "otel", "endpoint")``: a part may itself contain a dot."""


@final
class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One value and its origin.

    Attributes:
        value: the value as given; in a file, references to environment variables are already replaced. A mapping only for an
            empty table, because the keys of other tables are settings of their own.
        where: the file, ``"environment"`` or ``"arguments"``, as in ``Fault``.
        key: the dotted key, or the name of the environment variable, as in ``Fault``.
        text: whether the value is a text from the environment, which may be coerced to another type.
        private: whether the value contains text from the environment, which no message may repeat.
        shown: the value as people may see it: with references as they are written in the file.
    """

    value: Any
    where: str
    key: str
    text: bool = False
    private: bool = False
    shown: Any = None

    def __repr__(self) -> str:
        # Without the value, which may be a secret.
        return f"Setting({self.key!r} of {self.where})"

    @property
    def is_table(self) -> bool:
        """Whether this stands for an empty table."""
        return is_mapping(self.value)


Settings: TypeAlias = dict[SettingPath, Setting]
"""A flat map. In a part of one (see ``below``), the empty path is a value that stands in place of a table."""


def merge(*sources: Settings) -> Settings:
    """One map of all sources, the lowest first: the higher value counts.

    A value also replaces a whole table of lower sources. The other way round, a lower value stays beside the keys that a
    higher source gives for the same place: it is checked at the end, too.
    """
    merged: Settings = {}
    for source in sources:
        # An empty table removes no keys of lower sources: tables are merged key by key.
        replaced = {path for path, setting in source.items() if not setting.is_table}
        kept = {
            path: setting
            for path, setting in merged.items()
            if not any(path[:length] in replaced for length in range(1, len(path)))
        }
        # Nor does an empty table hide a lower value that stands where a table belongs: the value is a fault.
        merged = kept | {path: setting for path, setting in source.items() if path in replaced or path not in kept}
    return merged


def below(settings: Settings, *path: str) -> Settings:
    """The part of a map under ``path``, with paths that begin there."""
    return {key[len(path) :]: setting for key, setting in settings.items() if key[: len(path)] == path}


def names_in(settings: Settings) -> list[str]:
    """The first parts of all paths, each once: the keys of the outermost table."""
    return list(dict.fromkeys(path[0] for path in settings if path))


def source_of(settings: Settings, key: str) -> tuple[str, str]:
    """Source and key to name in the ``Fault`` of a value or a table: of a table, all its sources and ``key``."""
    if len(settings) == 1 and (single := settings.get(())) is not None:
        return single.where, single.key
    return ", ".join(dict.fromkeys(setting.where for setting in settings.values())), key


def nested(values: Mapping[SettingPath, Any]) -> Any:
    """Nested tables made of the paths of a map; for the empty path alone, its value.

    >>> nested({("host",): "h", ("tags", "a"): 1, ("tags", "b"): 2})
    {'tags': {'a': 1, 'b': 2}, 'host': 'h'}
    """
    root: dict[str, Any] = {}
    # The longest paths first: a value is left out where a table already stands.
    for path in sorted(values, key=len, reverse=True):
        if not path:
            return root or values[path]
        table = root
        for part in path[:-1]:
            table = table.setdefault(part, {})
        table.setdefault(path[-1], values[path])
    return root


def from_file(path: Path | None, environ: Mapping[str, str]) -> tuple[Settings | None, list[Fault]]:
    """Read a TOML file; no settings when ``path`` is ``None``.

    In texts, ``${NAME}`` becomes the value of that environment variable, and ``$${`` becomes ``${``. Returns
    ``None`` in place of the settings when the file cannot be read or parsed.
    """
    if path is None:
        return {}, []
    try:
        document = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        problem = f"it cannot be read: {error.strerror or type(error).__name__}; expected a readable TOML file"
    except UnicodeDecodeError as error:
        problem = f"it is not UTF-8 text: {error.reason} at byte {error.start}; expected a TOML file"
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        problem = f"it is not TOML: {error}"
    else:
        return from_tables(document, str(path), environ)
    return None, [Fault(str(path), "file", problem)]


def from_tables(
    tables: Mapping[Any, Any], where: str = ARGUMENTS, environ: Mapping[str, str] | None = None
) -> tuple[Settings, list[Fault]]:
    """Flatten tables. With ``environ``, references to environment variables are replaced; texts of code have none."""
    settings: Settings = {}
    faults: list[Fault] = []
    # The loop appends to the list that it reads: the keys of a table are looked at after the table. `parents` are the tables
    # around a value. A table of code may contain itself, and would otherwise be read without end.
    pending: list[tuple[tuple[Any, ...], Any, tuple[object, ...]]] = [
        ((name,), value, (tables,)) for name, value in tables.items()
    ]
    for path, value, parents in pending:
        key = ".".join(map(str, path))
        if any(value is parent for parent in parents):
            faults.append(Fault(where, key, "the table contains itself; expected a table without itself inside"))
            continue
        if isinstance(path[-1], str) and is_mapping(value) and value:
            pending += [((*path, name), child, (*parents, value)) for name, child in value.items()]
            continue
        if not isinstance(path[-1], str):
            faults.append(Fault(where, key, f"a key is a str; got a {type(path[-1]).__name__}"))
            continue
        references: list[str] = []
        resolved = value if environ is None else _resolve(value, environ, references)
        faults += [Fault(where, key, problem) for name in references if (problem := _reference_problem(name, environ or {}))]
        is_reference = len(references) == 1 and value == f"${{{references[0]}}}"
        settings[path] = Setting(value=resolved, where=where, key=key, text=is_reference, private=bool(references), shown=value)
    return settings, faults


def from_environment(environ: Mapping[str, str]) -> tuple[Settings, list[Fault]]:
    """Take ``EVENTCORE_TELEMETRY__KEY``, ``EVENTCORE_EXPORTERS__NAME__KEY`` and, above them, ``EVENTCORE_EXPORTERS``.

    A variable that is empty counts as not set.
    """
    settings: Settings = {}
    faults: list[Fault] = []
    for name, value in sorted(environ.items()):
        if not value or not name.startswith(_PREFIXES) or name in _NO_SETTINGS:
            continue
        path = tuple(name.removeprefix("EVENTCORE_").lower().split("__"))
        if path[0] not in TABLES or len(path) == 1 or not all(path):
            faults.append(Fault(ENVIRONMENT, name, f"no such variable is known; expected {_VARIABLES}"))
        # `zip` ends with the shorter path: true when one path is equal to the other or to its beginning.
        elif any(all(part == other for part, other in zip(path, taken, strict=False)) for taken in settings):
            problem = "another variable sets the same key, or the table that this one is in; expected one of them"
            faults.append(Fault(ENVIRONMENT, name, problem))
        else:
            settings[path] = _variable(name, value)
    if selection := environ.get(EXPORTERS_VARIABLE):
        settings["exporters", "enabled"] = _variable(EXPORTERS_VARIABLE, selection)
    return settings, faults


def _variable(name: str, value: str) -> Setting:
    return Setting(value=value, where=ENVIRONMENT, key=name, text=True, private=True, shown=value)


def _resolve(value: Any, environ: Mapping[str, str], references: list[str]) -> Any:
    """Replace the references in a text, also inside lists and the tables in them; their names go to ``references``."""
    if _is_list(value):
        return [_resolve(item, environ, references) for item in value]
    if is_mapping(value):
        return {key: _resolve(item, environ, references) for key, item in value.items()}
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return "${"
        references.append(name)
        return environ.get(name, "")

    return _REFERENCE.sub(replace, value)


def _reference_problem(name: str, environ: Mapping[str, str]) -> str | None:
    if not _VARIABLE.fullmatch(name):
        return f"${{{name}}} names no variable; expected letters, digits and underscores, or $${{ for a plain ${{"
    if name not in environ:
        return f"the environment variable {name} is not set; set it, or write $${{{name}}} for a plain ${{{name}}}"
    return None


def is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    return isinstance(value, Mapping)


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)
