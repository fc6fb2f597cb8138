"""What is imported when it is first used (names of a package, modules that few processes need), and where files are found."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import Field


def when_used(package: str, **modules: str) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package (PEP 562) that imports some of its names when they are first used.

    Args:
        package: the ``__name__`` of the package.
        modules: the module of each name.

    >>> when_used("here", sha256="hashlib")("sha256")(b"").hexdigest()[:8]
    'e3b0c442'
    """

    def __getattr__(name: str) -> Any:
        if (module := modules.get(name)) is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(module), name)

    return __getattr__


def absolute_path(path: str = "") -> str | None:
    """A path as seen from the working directory; ``None`` for a relative one if that directory was removed: nothing is there.

    >>> absolute_path("/srv/shop/../shop.db")
    '/srv/shop.db'
    """
    try:
        return os.path.abspath(path)
    except OSError:
        return None


def dataclass_fields(cls: type[Any]) -> tuple[Field[Any], ...] | None:
    """The fields of a dataclass; ``None`` for any other class, without importing ``dataclasses``, which takes a millisecond.

    >>> dataclass_fields(int)
    """
    if not hasattr(cls, "__dataclass_fields__"):
        return None
    from dataclasses import fields

    return fields(cls)
