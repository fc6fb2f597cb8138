"""The tool that changes our exporters: it changes what it says, and always chooses the same mutants."""

from __future__ import annotations

import ast
import tomllib

import pytest

from tests.testing.exporters.mutate import MODULES, SURVIVORS, choose, mutated

# They read the sources, which do not depend on the interpreter.
pytestmark = pytest.mark.once


def test_a_mutant_differs_from_its_module_in_one_place() -> None:
    for mutant in choose(20, seed=1):
        original = ast.parse(_source(mutant.module))
        assert ast.unparse(mutated(mutant)) != ast.unparse(original), mutant.key


def test_a_seed_always_chooses_the_same_mutants() -> None:
    assert choose(10, seed=1) == choose(10, seed=1) != choose(10, seed=2)


def test_every_explanation_is_about_a_module_that_is_changed() -> None:
    explained = tomllib.loads(SURVIVORS.read_text())
    assert all(len(reason) > 10 for reason in explained.values())
    assert {key.partition(":")[0] for key in explained} <= set(MODULES)


def _source(module: str) -> str:
    return (SURVIVORS.parents[3] / MODULES[module][0]).read_text()
