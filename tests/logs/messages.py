"""Finds every call in the sources that writes a log record: its level, its logger and its message, as they stand there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = [ROOT / f"{project}/src" for project in ("eventcore-core", "eventcore-otel", "eventcore-prometheus")]
LEVELS: Final = {"debug": "DEBUG", "info": "INFO", "warning": "WARNING", "error": "ERROR", "exception": "ERROR"}
# Where the name of the logger is not a constant of the module: that of the exporter.
OF_AN_EXPORTER: Final = "eventcore.exporters.NAME"
# What writes the records of others: their calls are found.
PASSES_ON: Final = {"eventcore.exporting.delivery.cycles.calls"}
_PLACEHOLDER: Final = re.compile(r"%[0-9.]*[a-zA-Z]")


class Message(NamedTuple):
    """One message; ``…`` stands for a value."""

    level: str
    logger: str
    text: str


def messages() -> dict[Message, str]:
    """Every message, with the place of one call."""
    found: dict[Message, str] = {}
    for source in SOURCES:
        for path in sorted(source.rglob("*.py")):
            module = ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__")
            if module not in PASSES_ON:
                for message, line in _messages_in(module, ast.parse(path.read_text())):
                    found[message] = f"{path.relative_to(ROOT)}:{line}"
    return found


def _messages_in(module: str, tree: ast.Module) -> Iterator[tuple[Message, int]]:
    loggers = _loggers(module, tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        match node:
            case ast.Call(func=ast.Attribute(value=value, attr=method), args=[text, *_]) if method in LEVELS:
                name = ast.unparse(value)
                if "logger" in name.lower():
                    yield Message(LEVELS[method], loggers.get(name, OF_AN_EXPORTER), _text(text, tree)), node.lineno
            # Where a handler may raise: `log_safely(logger, logging.WARNING, text)`.
            case ast.Call(
                func=ast.Name(id="log_safely"), args=[value, ast.Attribute(value=ast.Name(id="logging"), attr=level), text, *_]
            ):
                yield Message(level, loggers.get(ast.unparse(value), OF_AN_EXPORTER), _text(text, tree)), node.lineno
            # The workers of exporters: `self._log(logging.WARNING, text)`.
            case ast.Call(
                func=ast.Attribute(attr="_log"), args=[ast.Attribute(value=ast.Name(id="logging"), attr=level), text, *_]
            ):
                yield Message(level, OF_AN_EXPORTER, _text(text, tree)), node.lineno


def _loggers(module: str, tree: ast.Module) -> dict[str, str]:
    loggers: dict[str, str] = {}
    for node in tree.body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Call(func=ast.Name(), args=[argument])):
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    loggers[name] = argument.value
                elif ast.unparse(argument) == "__name__":
                    loggers[name] = module
    return loggers


def _text(node: ast.expr, tree: ast.Module) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return _PLACEHOLDER.sub("…", text).replace("\n", " ")
        case ast.JoinedStr(values=parts):
            return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in parts)  # type: ignore[misc]  # texts
        case ast.Name() | ast.Attribute():
            # Given by a variable: what it was last set to above.
            above = [
                assigned.value
                for assigned in ast.walk(tree)
                if isinstance(assigned, ast.Assign)
                and assigned.lineno < node.lineno
                and ast.unparse(assigned.targets[-1]) == ast.unparse(node)
            ]
            return _text(max(above, key=lambda value: value.lineno), tree) if above else "…"
    return "…"
