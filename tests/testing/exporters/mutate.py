"""Changes the code of our exporters in 150 places, one at a time, and runs the contract of exporters: it has to notice.

``python -m tests.testing.exporters.mutate`` prints how many mutants the contract has killed, by module, and every survivor.
It fails if fewer than 80 % are killed, or if ``survivors.toml`` does not explain a survivor. The places are chosen by a hash
of what stands there and a seed, so that a change of the code elsewhere leaves the choice as it is.

    python -m tests.testing.exporters.mutate [--count 150] [--seed 1] [--only MODULE] [--survivors] [--list] [--timeout 20]

Those that have survived before run first. On a machine that is busy with other things, give a longer timeout: a test that only
was slow would count as a kill. Each mutant runs in a forked process, which imports the changed module in place of the file.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import grpc  # noqa: F401  # imported once here, and not in each mutant, as are the next three
import hypothesis  # noqa: F401
import msgspec
import opentelemetry.proto.collector.trace.v1.trace_service_pb2  # noqa: F401
import prometheus_client  # noqa: F401
import pytest

from tests.real_parts import DdapmTestAgent, fixtures
from tests.real_parts.finding import find_part

ROOT: Final = Path(__file__).parents[3]
SURVIVORS: Final = Path(__file__).with_name("survivors.toml")
LEAST: Final = 0.8
_HERE: Final = "tests/testing/exporters"
_OTEL: Final = "eventcore-otel/src/eventcore_otel"
_PROMETHEUS: Final = "eventcore-prometheus/src/eventcore_prometheus"
# The hook, encoding and page code, each with the tests that run the contract on it.
MODULES: Final[dict[str, tuple[str, Sequence[str]]]] = {
    "eventcore.exporting.console": ("eventcore-core/src/eventcore/exporting/console.py", [f"{_HERE}/test_kit_on_console.py"]),
    **{
        f"eventcore_otel.{name}": (f"{_OTEL}/{name}.py", [f"{_HERE}/test_kit_on_otel.py"])
        for name in ("exporter", "session", "encoding", "outbox", "transport")
    },
    **{
        f"eventcore_prometheus.{name}": (f"{_PROMETHEUS}/{name}.py", [f"{_HERE}/test_kit_on_prometheus.py"])
        for name in ("exporter", "page", "rendering", "naming")
    },
}
# What is not hook, encoding or page code there: settings and their checks, and other ways to serve the page.
_LEFT_OUT: Final = frozenset(
    {
        *("_Settings", "Exporter.__init__", ".asgi_app", ".wsgi_app", ".address", ".url", ".configured_url", ".scrapes"),
        *("_respond", "_listen", "check_renames"),
    }
)
# A mutant that hangs is killed. A test that waits for what never comes need not wait long.
_OPTIONS: Final = [
    *("-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore::ResourceWarning"),
    # Hypothesis is imported before the fork, so pytest warns that it cannot rewrite the assertions in it.
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
]
# Of so many timeouts of one test, a mutant may need all.
_LONGEST: Final = 12
# How long a test waits for what never comes, as a share of the timeout.
_PATIENCE: Final = 0.2
_COMPARE: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
}


class Mutant(msgspec.Struct, frozen=True):
    """One change of one module.

    Attributes:
        module: its name.
        function: the function, with its class, that is changed.
        what: what stands there, and what takes its place.
        path: where the node is, as the numbers of fields and items from the module down.
        kind: which change of the node.
    """

    module: str
    function: str
    what: str
    path: tuple[tuple[str, int], ...]
    kind: str

    @property
    def key(self) -> str:
        """What ``survivors.toml`` calls it: it stays the same when lines move."""
        return f"{self.module}:{self.function}: {self.what}"


def mutants_of(module: str) -> Iterator[Mutant]:
    """Every mutant of a module."""
    tree = ast.parse((ROOT / MODULES[module][0]).read_text())
    for path, node, function in _walk(tree, (), ""):
        if function and not any(left_out in function for left_out in _LEFT_OUT):
            for kind, changed in _changes(node):
                before, after = _line(node), _line(changed) if changed is not None else "(left out)"
                yield Mutant(module, function, f"{before} -> {after}", path, kind)


def _line(node: ast.AST) -> str:
    text = " ".join(ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).split())
    return text if len(text) <= 100 else f"{text[:100]}…"


def _walk(
    node: ast.AST, path: tuple[tuple[str, int], ...], function: str
) -> Iterator[tuple[tuple[tuple[str, int], ...], ast.AST, str]]:
    """The nodes whose change matters: not docstrings, annotations, texts of errors and logs, nor what only shows the object."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_comment", "type_params"):
            continue
        for index, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or _is_text_for_people(child):
                continue
            inside = function
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                if child.name == "__repr__":
                    continue
                inside = f"{function}.{child.name}".lstrip(".")
            step = (*path, (field, index))
            yield step, child, inside
            yield from _walk(child, step, inside)


def _is_text_for_people(node: ast.AST) -> bool:
    match node:
        case ast.Expr(value=ast.Constant()) | ast.Raise() | ast.Import() | ast.ImportFrom() | ast.Assert() | ast.JoinedStr():
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Call(func=ast.Attribute(attr="info" | "warning" | "debug" | "error")):
            return True
        case _:
            return False


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST | None]]:
    """The changes of one node, by kind; ``None`` leaves a statement out."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in _COMPARE:
            yield "compare", _with(node, ops=[_COMPARE[type(op)]()])
        case ast.BinOp(op=op) if type(op) in _ARITHMETIC:
            yield "arithmetic", _with(node, op=_ARITHMETIC[type(op)]())
        case ast.BoolOp(op=op):
            yield "and-or", _with(node, op=ast.Or() if isinstance(op, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.Not()):
            yield "not", node.operand
        case ast.IfExp():
            yield "branch", _with(node, body=node.orelse, orelse=node.body)
        case ast.If():
            yield "condition", _with(node, test=ast.UnaryOp(ast.Not(), node.test))
        case ast.Constant(value=bool() as value):
            yield "boolean", ast.Constant(not value)
        case ast.Constant(value=int() | float() as number):
            yield "number", ast.Constant(number + 1)
        case ast.Constant(value=str() as text):
            yield "text", ast.Constant(f"{text}x")
        case ast.Return(value=value) if value is not None and not isinstance(value, ast.Constant):
            yield "return", ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()) | ast.AugAssign():
            yield "statement", None
        case ast.Assign(targets=[ast.Attribute()]):
            yield "statement", None
        case ast.Subscript(slice=ast.Slice(lower=lower, upper=upper) as cut) if lower or upper:
            yield "slice", _with(node, slice=_with(cut, lower=None, upper=None))
        case _:
            pass


def _with(node: Any, **fields: Any) -> Any:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def mutated(mutant: Mutant) -> ast.Module:
    """The tree of the module with the change."""
    tree = ast.parse((ROOT / MODULES[mutant.module][0]).read_text())
    *above, (field, index) = mutant.path
    parent: Any = tree
    for name, number in above:
        value = getattr(parent, name)
        parent = value[number] if isinstance(value, list) else value
    value = getattr(parent, field)
    node = value[index] if isinstance(value, list) else value
    changed = dict(_changes(node))[mutant.kind]
    replacement = ast.Pass() if changed is None else changed
    if isinstance(value, list):
        value[index] = replacement
    else:
        setattr(parent, field, replacement)
    for each in ast.walk(tree):
        if isinstance(each, ast.expr | ast.stmt) and not hasattr(each, "lineno"):
            ast.copy_location(each, node)
    return ast.fix_missing_locations(tree)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a changed tree."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def find_spec(self, name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if name != self.mutant.module:
            return None
        file = str(ROOT / MODULES[name][0])
        return importlib.util.spec_from_file_location(name, file, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        code = compile(mutated(self.mutant), str(ROOT / MODULES[self.mutant.module][0]), "exec")
        exec(code, vars(module))  # the module's own code, changed in one place


def choose(count: int, seed: int, only: str = "") -> list[Mutant]:
    """The mutants of this seed, in an order that does not depend on the rest of the code."""
    found = {mutant.key: mutant for module in MODULES if only in module for mutant in mutants_of(module)}

    def order(mutant: Mutant) -> str:
        return hashlib.sha256(f"{seed}:{mutant.key}".encode()).hexdigest()

    return sorted(found.values(), key=order)[:count]


def _fork(mutant: Mutant | None, tests: Sequence[str], agent: DdapmTestAgent | None, timeout: float) -> int:
    """Run the contract with a mutant in a forked process, which spares the imports; returns its id."""
    if child := os.fork():
        return child
    code = 3
    try:
        # A group of its own: whatever the tests leave behind is ended with it.
        os.setpgid(0, 0)
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        os.environ["EVENTCORE_KIT_PATIENCE"] = str(timeout * _PATIENCE)
        if agent is not None:
            # The agent of this place in the queue, in place of one that starts for each mutant.
            agent.stop = lambda: None  # type: ignore[method-assign]  # in this process only
            vars(fixtures)["DdapmTestAgent"] = lambda *_: agent
        if mutant is not None:
            assert mutant.module not in sys.modules, "the parent must not have imported what is changed"
            sys.meta_path.insert(0, _Finder(mutant))
        code = int(pytest.main([*_OPTIONS, "-o", f"timeout={timeout}", *tests]))
    finally:
        os._exit(code)


def _run_all(
    chosen: Sequence[Mutant], agents: list[DdapmTestAgent | None], timeout: float, report: Callable[[Mutant, int], None]
) -> dict[str, int]:
    """Run as many mutants at a time as there are agents. Returns pytest's exit code of each, by key."""
    waiting, codes = list(chosen), dict[str, int]()
    running: dict[int, tuple[Mutant, float, DdapmTestAgent | None]] = {}
    while waiting or running:
        while waiting and agents:
            mutant, agent = waiting.pop(0), agents.pop()
            child = _fork(mutant, MODULES[mutant.module][1], agent, timeout)
            running[child] = mutant, time.monotonic() + _LONGEST * timeout, agent
        time.sleep(0.05)
        for child, (mutant, deadline, agent) in list(running.items()):
            process, status = os.waitpid(child, os.WNOHANG)
            if not process and time.monotonic() < deadline:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            if not process:
                os.waitpid(child, 0)
            del running[child]
            agents.append(agent)
            # A process that had to be killed has not passed either.
            codes[mutant.key] = os.waitstatus_to_exitcode(status) if process else 1
            report(mutant, codes[mutant.key])
    return codes


def main() -> int:
    """Run the mutants and print what survived."""
    parser = argparse.ArgumentParser(description="Mutants of our exporters, to be killed by the contract of exporters alone.")
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="a part of the names of modules")
    parser.add_argument("--survivors", action="store_true", help="only those that survived before")
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    parser.add_argument("--timeout", type=float, default=20.0, help="seconds that one test of a mutant may take")
    options = parser.parse_args()
    explained = _explained()
    chosen = sorted(choose(options.count, options.seed, options.only), key=lambda mutant: mutant.key not in explained)
    if options.survivors:
        chosen = [mutant for mutant in chosen if mutant.key in explained]
    if options.list:
        print("\n".join(mutant.key for mutant in chosen))
        return 0
    begun = time.monotonic()
    done = 0

    def report(mutant: Mutant, code: int) -> None:
        nonlocal done
        done += 1
        print(f"{done:3} {'SURVIVED' if code == 0 else 'killed'} ({code}) {mutant.key}", flush=True)

    for tests in dict.fromkeys(tuple(MODULES[mutant.module][1]) for mutant in chosen):
        _, status = os.waitpid(_fork(None, tests, None, options.timeout), 0)
        if os.waitstatus_to_exitcode(status) != 0:
            print(f"pytest {' '.join(tests)} fails without a mutant")
            return 1
    with ExitStack() as started:
        agents: list[DdapmTestAgent | None] = [None] * (os.cpu_count() or 1)
        if any("otel" in mutant.module for mutant in chosen):
            program = find_part("ddapm-test-agent")
            for place in range(len(agents)):
                folder = Path(started.enter_context(tempfile.TemporaryDirectory()))
                agents[place] = agent = DdapmTestAgent(program, folder)
                started.callback(agent.stop)
        codes = _run_all(chosen, agents, options.timeout, report)
    return _summary(chosen, codes, time.monotonic() - begun, least=0.0 if options.survivors else LEAST)


def _explained() -> dict[str, str]:
    return tomllib.loads(SURVIVORS.read_text()) if SURVIVORS.exists() else {}


def _summary(chosen: Sequence[Mutant], codes: dict[str, int], seconds: float, least: float) -> int:
    explained = _explained()
    survived = [mutant.key for mutant in chosen if codes[mutant.key] == 0]
    by_module = Counter(mutant.module for mutant in chosen)
    killed = Counter(mutant.module for mutant in chosen if codes[mutant.key] != 0)
    for module, count in by_module.items():
        print(f"{module:35} {killed[module]:4} of {count} killed")
    share = 1 - len(survived) / len(chosen)
    counts = f"{len(chosen) - len(survived)} killed ({share:.0%}), {len(survived)} survived"
    print(f"{len(chosen)} mutants: {counts}; {seconds:.0f} s")
    # In the share that is demanded, these count as survivors. Beside it: how many of the others are killed.
    same = sum(explained.get(key, "").startswith("equivalent") for key in survived)
    others = len(chosen) - same
    if same and others:
        of_others = 1 - (len(survived) - same) / others
        print(f"without {same} in which nothing differs for a backend: {of_others:.0%} of {others} killed")
    for key in survived:
        print(f"survived: {key}\n    {explained.get(key, 'NOT EXPLAINED in survivors.toml')}")
    for key in [mutant.key for mutant in chosen if mutant.key in explained and codes[mutant.key] != 0]:
        print(f"killed: {key}\n    it is explained: take it out of survivors.toml if it was not only slow")
    there = {mutant.key for module in MODULES for mutant in mutants_of(module)}
    for key in explained.keys() - there:
        print(f"gone: {key}\n    no such code any more: take it out of survivors.toml")
    unexplained = [key for key in survived if key not in explained]
    return 1 if share < least or unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
