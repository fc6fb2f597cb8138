"""The shape of core in figures: ``python -m tests.structure`` prints them, ``tests/test_structure.py`` holds the limits."""

from __future__ import annotations

import ast
import io
import json
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

ROOT: Final = Path(__file__).parent.parent
CORE: Final = ROOT / "eventcore-core" / "src" / "eventcore"
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)


class ModuleShape(msgspec.Struct, frozen=True):
    """One module: its lines by kind, its long functions, the attributes of its classes, and the modules of core it imports."""

    name: str
    lines: int
    code: int
    comments: int
    docstrings: int
    functions: dict[str, int]
    attributes: dict[str, int]
    imports: frozenset[str]

    @property
    def package(self) -> str:
        """The folder directly below core, or the module itself."""
        return self.name.split(".")[1] if "." in self.name else self.name


def modules(core: Path = CORE, *, testing: bool = False) -> list[ModuleShape]:
    """Every module of core, by name; ``eventcore.testing`` only when asked for."""
    found = [_shape(path, core) for path in sorted(core.rglob("*.py"))]
    return [module for module in found if testing or not module.name.startswith("eventcore.testing")]


def rooms(core: Path = CORE) -> dict[str, int]:
    """How many modules and folders each folder holds; ``__init__`` is the folder itself."""
    folders = [core, *sorted(path for path in core.rglob("*") if path.is_dir() and (path / "__init__.py").exists())]
    return {
        str(folder.relative_to(core.parent)): sum(
            1 for entry in folder.iterdir() if _is_module(entry) or (entry.is_dir() and (entry / "__init__.py").exists())
        )
        for folder in folders
    }


def _is_module(path: Path) -> bool:
    return path.suffix == ".py" and path.name != "__init__.py"


def _shape(path: Path, core: Path) -> ModuleShape:
    text = path.read_text()
    tree = ast.parse(text)
    parts = path.relative_to(core.parent).with_suffix("").parts
    docstrings = {line for node in ast.walk(tree) for line in _docstring_lines(node)}
    comments: set[int] = set()
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments.add(token.start[0])
        elif token.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER):
            code.update(range(token.start[0], token.end[0] + 1))
    code -= docstrings
    return ModuleShape(
        name=".".join(parts if parts[-1] != "__init__" else parts[:-1]),
        lines=text.count("\n"),
        code=len(code),
        comments=len(comments - code),
        docstrings=len(docstrings),
        functions=dict(_functions(tree)),
        attributes={node.name: len(_attributes(node)) for node in ast.walk(tree) if isinstance(node, ast.ClassDef)},
        imports=frozenset(_imports(tree)),
    )


def _docstring_lines(node: ast.AST) -> Iterator[int]:
    """Lines of docstrings, also of those that stand below an attribute."""
    for child in getattr(node, "body", ()) if not isinstance(node, ast.Lambda | ast.IfExp) else ():
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant) and isinstance(child.value.value, str):
            yield from range(child.lineno, (child.end_lineno or child.lineno) + 1)


def _functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, _FUNCTIONS):
            own = set(range(node.lineno, (node.end_lineno or node.lineno) + 1)) - set(_docstring_lines(node))
            yield f"{node.name}:{node.lineno}", len(own)


def _attributes(cls: ast.ClassDef) -> set[str]:
    """What an instance holds: fields that are declared with a type, slots, and what its methods set on ``self``."""
    names: set[str] = set()
    for node in cls.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if "ClassVar" not in ast.unparse(node.annotation):
                names.add(node.target.id)
        elif isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__slots__" for t in node.targets):
            value = ast.literal_eval(node.value)
            names.update((value,) if isinstance(value, str) else value)
        elif isinstance(node, _FUNCTIONS):
            names.update(_set_on_self(node))
    return names - {"__weakref__"}


def _set_on_self(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    for node in ast.walk(function):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        for target in targets:
            for part in ast.walk(target):
                if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id == "self":
                    yield part.attr


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("eventcore"):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("eventcore"))


def main() -> None:
    """Print the figures: as a table, or with ``--json`` for scripts; another tree's core may be named."""
    words = [word for word in sys.argv[1:] if word != "--json"]
    core = Path(words[0]) if words else CORE
    found = modules(core)
    by_package = {package: [m for m in found if m.package == package] for package in dict.fromkeys(m.package for m in found)}
    rows = [
        (
            package,
            len(members),
            sum(len(m.attributes) for m in members),
            sum(m.code for m in members),
            sum(m.comments for m in members),
            sum(m.docstrings for m in members),
            sum(m.lines for m in members),
        )
        for package, members in by_package.items()
    ]
    totals = ("total", *(sum(row[column] for row in rows) for column in range(1, 7)))  # type: ignore[misc]  # numbers only
    long = {f"{m.name}.{name}": size for m in found for name, size in m.functions.items() if size > 50}
    wide = {f"{m.name}.{name}": size for m in found for name, size in m.attributes.items() if size > 10}
    busy = {m.name: len(m.imports) for m in found if len(m.imports) > 10}
    crowded = Counter(rooms(core))
    if "--json" in sys.argv:
        print(json.dumps({"packages": rows, "long": long, "wide": wide, "busy": busy, "rooms": crowded}))
        return
    print(f"{'package':14}{'modules':>9}{'classes':>9}{'code':>8}{'comments':>10}{'docstr.':>9}{'lines':>8}")
    for package, *numbers in (*rows, totals):
        print(f"{package:14}" + "".join(f"{n:>{w}}" for n, w in zip(numbers, (9, 9, 8, 10, 9, 8), strict=True)))
    for title, found_here in (
        ("functions over 50 lines", long),
        ("classes with more than 10 attributes", wide),
        ("modules that import more than 10 of core's", busy),
        ("rooms of a folder", dict(crowded.most_common())),
    ):
        print(f"\n{title}: {len(found_here)}")
        for name, size in sorted(found_here.items(), key=lambda item: -item[1]):
            print(f"  {size:>4}  {name}")


if __name__ == "__main__":
    main()
