"""Helpers for tests of an application's commands, and tests for backends.

``given(...).when(command).then(...)`` tests what a command decides, without a store.

``StoreContract`` and ``ProjectionContract`` are the tests that every store must pass. To run them on a backend of your own,
derive a class from them and override one fixture. They need pytest and pytest-asyncio, which are imported on first use.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from eventcore.testing.scenario import Given, When, given

if TYPE_CHECKING:
    from eventcore.testing.contract import MakeBackend, ProjectionContract, ReadModel, StoreContract

__all__ = ["Given", "MakeBackend", "ProjectionContract", "ReadModel", "StoreContract", "When", "given"]

_CONTRACT: Final = "eventcore.testing.contract"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        pytest = import_module("pytest")
        import_module("pytest_asyncio")
    except ImportError as error:
        raise ImportError(
            f"{__name__}.{name} needs pytest and pytest-asyncio: pip install pytest pytest-asyncio", name=error.name
        ) from error
    if _CONTRACT not in sys.modules:
        # Must come before the import. With it, pytest shows the values that a failed assertion compared.
        pytest.register_assert_rewrite(_CONTRACT)
    return getattr(import_module(_CONTRACT), name)
