"""Whether a plugin requires a newer eventcore-core than the one that is installed, by its ``Requires-Dist``.

pip checks this when it installs a plugin, but not when core is changed afterwards, nor for a copied directory.
Only the lower bound is judged here: whether a plugin works with a later core than it knows is what the contract
of hooks says.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Final

from eventcore.exporting.configuration.distributions import normalised
from eventcore.version import __version__

CORE_DISTRIBUTION: Final = "eventcore-core"
_REQUIREMENT: Final = re.compile(r"\s*([\w.-]+)\s*(?:\[[^\]]*\])?\s*\(?([^;)]*)\)?\s*(?:;(.*))?", re.ASCII)
_LOWER_BOUND: Final = re.compile(r"\s*(>=|>|===?|~=)\s*v?(\d+(?:\.\d+)*)")
_PYTHON: Final = re.compile(r"\s*python_(?:full_)?version\s*(>=|>|<=|<|==|!=)\s*['\"](\d+(?:\.\d+)*)['\"]\s*")


def missing_core(requirements: Iterable[str], installed: str = __version__) -> str:
    """What a plugin requires of core that the installed core is too old for; empty when it is new enough.

    >>> missing_core(["msgspec>=0.19", "eventcore-core>=9.1,<10"], "0.1.0")
    'eventcore-core>=9.1,<10'
    >>> missing_core(["eventcore-core>=0.1"], "0.1.0")
    ''
    """
    present = _release(installed)
    for requirement in requirements:
        if (match := _REQUIREMENT.match(requirement)) is None or normalised(match[1]) != CORE_DISTRIBUTION:
            continue
        specifiers, marker = match[2].replace(" ", ""), match[3]
        if marker is None or _applies(marker):
            bounds = [bound for each in specifiers.split(",") if (bound := _LOWER_BOUND.match(each)) is not None]
            # The numbers only: a pre-release of the required version is let pass.
            if any(_release(bound[2]) > present or (bound[1] == ">" and _release(bound[2]) == present) for bound in bounds):
                return f"{CORE_DISTRIBUTION}{specifiers}"
    return ""


def _applies(marker: str) -> bool:
    """Whether a marker holds here. Only versions of Python are judged: what is unknown is no reason to refuse a plugin."""
    python = sys.version_info[:3]
    for condition in re.split(r"\band\b", marker):
        if (match := _PYTHON.fullmatch(condition)) is None:
            return False
        asked = _release(match[2])
        # `python_version` has two parts, and so has what it is compared with.
        here = python[: len(asked)]
        compared = {"==": here == asked, "!=": here != asked, ">=": here >= asked, "<=": here <= asked}
        if not (compared | {">": here > asked, "<": here < asked})[match[1]]:
            return False
    return True


def _release(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(part) for part in match[0].split(".")] if match is not None else [0]
    while numbers[1:] and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
