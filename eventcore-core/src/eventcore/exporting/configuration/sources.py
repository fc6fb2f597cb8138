"""Where settings come from: a TOML file, a mapping given in code, and environment variables, merged by precedence."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeGuard, final

import msgspec

from eventcore.errors import Fault

ENVIRONMENT: Final = "environment"
ARGUMENTS: Final = "arguments"
NOWHERE: Final = "configuration"
"""Where an empty table stands: it holds no value that could say it."""
_PREFIX: Final = "EVENTCORE_"
_TABLES: Final = ("TELEMETRY", "EXPORTERS")
_REFERENCE: Final = re.compile(r"\$\$\{|\$\{([^}]*)\}")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@final
class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One value with its source.

    Attributes:
        value: as it was given; what ``${NAME}`` stands for is already in it.
        where: the file, ``"environment"`` or ``"arguments"``, as in ``Fault``.
        key: the dotted key, or the name of the variable.
        text: true for a text from the environment, which may be coerced to another type.
        private: true when it holds something of the environment, which no message may repeat.
        shown: what may be shown to people: references to the environment as they were written.
    """

    value: Any
    where: str
    key: str
    text: bool = False
    private: bool = False
    shown: Any = None


Tree: TypeAlias = dict[str, "Setting | Tree"]
"""Tables are dictionaries, everything else is a ``Setting``."""


def plain(node: Setting | Tree) -> Any:
    """The bare values."""
    return node.value if isinstance(node, Setting) else {key: plain(child) for key, child in node.items()}


def shown(node: Setting | Tree) -> Any:
    """The values as they may be shown: references to the environment as they were written."""
    return node.shown if isinstance(node, Setting) else {key: shown(child) for key, child in node.items()}


def settings_in(node: Setting | Tree) -> Iterator[Setting]:
    """Every value below a node."""
    if isinstance(node, Setting):
        yield node
    else:
        for child in node.values():
            yield from settings_in(child)


def place(node: Setting | Tree | None, key: str) -> tuple[str, str]:
    """Where a node stands and under which key; ``key`` is that of a table, which has none of its own."""
    if isinstance(node, Setting):
        return node.where, node.key
    sources = dict.fromkeys(setting.where for setting in settings_in(node)) if node is not None else ()
    return ", ".join(sources) or NOWHERE, key


def merge(lower: Tree, higher: Tree) -> Tree:
    """One tree: tables are merged key by key, of everything else the higher one counts."""
    merged = dict(lower)
    for key, node in higher.items():
        below = merged.get(key)
        merged[key] = merge(below, node) if isinstance(node, dict) and isinstance(below, dict) else node
    return merged


def from_file(path: Path, environ: Mapping[str, str]) -> tuple[Tree, list[Fault]]:
    """Read a file; ``${NAME}`` in its texts stands for the variable, ``$${`` for a plain ``${``."""
    where = str(path)
    try:
        document = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        return {}, [
            Fault(where, "file", f"it cannot be read: {error.strerror or type(error).__name__}; expected a readable TOML file")
        ]
    except UnicodeDecodeError as error:
        return {}, [Fault(where, "file", f"it is not UTF-8 text: {error.reason} at byte {error.start}; expected a TOML file")]
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        return {}, [Fault(where, "file", f"it is not TOML: {error}")]
    faults: list[Fault] = []
    return _file_table(document, where, "", environ, faults), faults


def from_mapping(mapping: Mapping[str, Any], where: str = ARGUMENTS) -> tuple[Tree, list[Fault]]:
    """Take the tables that code passed as they are."""
    faults: list[Fault] = []
    return _mapping_table(mapping, where, "", faults), faults


def from_environment(environ: Mapping[str, str]) -> tuple[Tree, list[Fault]]:
    """Take ``EVENTCORE_EXPORTERS__NAME__KEY`` and ``EVENTCORE_TELEMETRY__KEY``; an empty variable counts as not set."""
    tree: Tree = {}
    faults: list[Fault] = []
    for name, value in sorted(environ.items()):
        if not value or not name.startswith(tuple(_PREFIX + table[:-1] for table in _TABLES)) or name == f"{_PREFIX}EXPORTERS":
            continue
        table, *path = name.removeprefix(_PREFIX).split("__")
        if table not in _TABLES or not path or not all(path):
            faults.append(Fault(ENVIRONMENT, name, f"no such variable is known; expected {_expected_variables()}"))
        elif not _insert(tree, [table.lower(), *(part.lower() for part in path)], _environment_setting(name, value)):
            faults.append(
                Fault(
                    ENVIRONMENT,
                    name,
                    "another variable sets the same key, or the table that this one is in; expected one of them",
                )
            )
    return tree, faults


def _expected_variables() -> str:
    names = f"{_PREFIX}EXPORTERS, {_PREFIX}EXPORTERS__NAME__KEY or {_PREFIX}TELEMETRY__KEY"
    return f"{names} (two underscores between the parts)"


def _environment_setting(name: str, value: str) -> Setting:
    return Setting(value=value, where=ENVIRONMENT, key=name, text=True, private=True, shown=value)


def _insert(tree: Tree, path: list[str], setting: Setting) -> bool:
    *tables, last = path
    for table in tables:
        child = tree.setdefault(table, {})
        if not isinstance(child, dict):
            return False
        tree = child
    return tree.setdefault(last, setting) is setting


def _file_table(table: Mapping[str, Any], where: str, prefix: str, environ: Mapping[str, str], faults: list[Fault]) -> Tree:
    tree: Tree = {}
    for name, value in table.items():
        key = prefix + name
        if _is_table(value):
            tree[name] = _file_table(value, where, f"{key}.", environ, faults)
            continue
        missing: list[str] = []
        resolved = _resolve(value, environ, missing)
        faults.extend(Fault(where, key, _missing_variable(reference)) for reference in missing)
        whole = isinstance(value, str) and (match := _REFERENCE.fullmatch(value)) is not None and match[1] is not None
        tree[name] = Setting(value=resolved, where=where, key=key, text=whole, private=_refers(value), shown=value)
    return tree


def _mapping_table(table: Mapping[Any, Any], where: str, prefix: str, faults: list[Fault]) -> Tree:
    tree: Tree = {}
    for name, value in table.items():
        if not isinstance(name, str):
            faults.append(Fault(where, f"{prefix}{name!r}", f"a key is a str; got a {type(name).__name__}"))
        elif _is_mapping(value):
            tree[name] = _mapping_table(value, where, f"{prefix}{name}.", faults)
        else:
            tree[name] = Setting(value=value, where=where, key=prefix + name, shown=value)
    return tree


def _resolve(value: Any, environ: Mapping[str, str], missing: list[str]) -> Any:
    """Replace the references in a text, also inside lists and the tables in them."""
    if _is_list(value):
        return [_resolve(item, environ, missing) for item in value]
    if _is_table(value):
        return {key: _resolve(item, environ, missing) for key, item in value.items()}
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return "${"
        if not _VARIABLE.fullmatch(name) or name not in environ:
            missing.append(name)
        return environ.get(name, "")

    return _REFERENCE.sub(replace, value)


def _missing_variable(name: str) -> str:
    if _VARIABLE.fullmatch(name):
        return f"the environment variable {name} is not set; set it, or write $${{{name}}} for a plain ${{{name}}}"
    return f"${{{name}}} names no variable; expected letters, digits and underscores, or $${{ for a plain ${{"


def _refers(value: Any) -> bool:
    if _is_list(value):
        return any(map(_refers, value))
    if _is_table(value):
        return any(map(_refers, value.values()))
    return isinstance(value, str) and any(match[1] is not None for match in _REFERENCE.finditer(value))


def _is_table(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    return isinstance(value, Mapping)
