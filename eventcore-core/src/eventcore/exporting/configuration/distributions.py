"""Reads the installed distributions one by one, so that damaged metadata of one hides nothing of another.

``importlib.metadata.entry_points()`` raises for all distributions when the metadata of one is damaged: one line
without ``=`` in a file that belongs to something else would stop every store. Here each file is read by itself,
and what cannot be read becomes a ``Damage`` with the name of the file. The lines that are right still count.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import msgspec

from eventcore.ground import absolute_path, describe_error, text_of

if TYPE_CHECKING:
    from importlib.metadata import Distribution

ENTRY_POINTS: Final = "entry_points.txt"
# The file with the name and the version: of a wheel, and of an egg.
_METADATA: Final = ("METADATA", "PKG-INFO")
_UNKNOWN_NAME: Final = "an unknown distribution"
_UNKNOWN_VERSION: Final = "of unknown version"


@final
class Damage(msgspec.Struct, frozen=True):
    """Metadata of an installed distribution that cannot be used. It stops nothing.

    Attributes:
        file: the path of the file or directory.
        problem: what is wrong with it, and what to do.
    """

    file: str
    problem: str

    def __str__(self) -> str:
        return f"{self.file}: {self.problem}"


@final
class InstalledDistribution:
    """One distribution on the path, of which every part is read by itself. Nothing here raises.

    Args:
        distribution: as ``importlib.metadata`` has found it.
        damages: where damages are added.

    Attributes:
        path: the directory or file of its metadata, for messages.
    """

    def __init__(self, distribution: Distribution, damages: list[Damage]) -> None:
        self._distribution = distribution
        self._damages = damages
        # `PathDistribution` has no public name for it, and a message must name the file.
        path = getattr(distribution, "_path", None)
        self.path = absolute_path(text := text_of(path)) or text if path is not None else type(distribution).__qualname__

    @property
    def name(self) -> str:
        """The name as its metadata has it, else as the directory of the metadata is called."""
        return self._header("Name") or self._of_directory[0] or _UNKNOWN_NAME

    @property
    def version(self) -> str:
        """The version, found as the name is."""
        return self._header("Version") or self._of_directory[1] or _UNKNOWN_VERSION

    @property
    def key(self) -> str:
        """The normalised name, by which two distributions are one: taken from the directory, which costs no reading."""
        return normalised(self._of_directory[0] or self.name)

    @property
    def requirements(self) -> tuple[str, ...]:
        """What it requires, as in ``Requires-Dist``."""
        return tuple(value for key, value in self._headers if key == "requires-dist")

    def entry_points(self, group: str) -> list[tuple[str, str]]:
        """Name and value of each entry point of a group. Lines that are none are damages, also those of other groups."""
        found: dict[tuple[str, str], None] = {}
        section = ""
        for number, line in enumerate(self.read(ENTRY_POINTS).splitlines(), 1):
            line = line.strip()
            if not line or line[0] in "#;":
                continue
            if line[0] == "[" and line[-1] == "]":
                section = line[1:-1].strip()
                continue
            name, separator, value = (part.strip() for part in line.partition("="))
            if not (separator and name and value):
                self.damaged(ENTRY_POINTS, f"line {number} is {line!r:.60}; expected 'name = package.module:attribute'")
            elif section == group:
                found[name, value] = None
        return list(found)

    def read(self, name: str) -> str:
        """The text of a file of the metadata; empty when there is none, and when it cannot be read, which is a damage."""
        try:
            text = self._distribution.read_text(name)
            if text is None and self._is_there(name):
                raise OSError("it cannot be opened")
        except UnicodeDecodeError as error:
            self.damaged(name, f"it is not UTF-8 text: {error.reason} at byte {error.start}")
            return ""
        except Exception as error:  # noqa: BLE001  # a finder of its own, or a damaged archive, may raise anything
            self.damaged(name, f"it cannot be read: {describe_error(error)}")
            return ""
        return (text or "").removeprefix("\ufeff")

    def damaged(self, name: str, problem: str) -> None:
        """Add a damage of one of the files."""
        hint = f"; reinstall {self._of_directory[0]!r}" if self._of_directory[0] else ""
        damage = Damage(os.path.join(self.path, name) if name else self.path, problem + hint)
        if damage not in self._damages:
            self._damages.append(damage)

    def examine(self) -> None:
        """Add the damages of the files that finding plugins does not need to read."""
        if self.path.endswith(".dist-info"):
            self.read("RECORD")
        for header in ("Name", "Version"):
            if self._headers and not self._header(header):
                self.damaged(self._metadata_name, f"it has no {header}")

    @cached_property
    def _of_directory(self) -> tuple[str, str]:
        """Name and version of ``acme_journal-1.2.dist-info``; empty when the directory is called otherwise."""
        stem, _, suffix = Path(self.path).name.rpartition(".")
        if suffix not in ("dist-info", "egg-info"):
            return "", ""
        name, _, version = stem.partition("-")
        return name, version.partition("-")[0]

    @cached_property
    def _metadata_name(self) -> str:
        return _METADATA[self.path.endswith(".egg-info")]

    @cached_property
    def _headers(self) -> list[tuple[str, str]]:
        """The headers of the metadata: name in lower case, and value."""
        text = next((text for name in _METADATA if (text := self.read(name))), "") or self._egg_file()
        if not text and not any(damage.file.startswith(self.path) for damage in self._damages):
            self.damaged(self._metadata_name, "it is missing or empty")
        headers: list[tuple[str, str]] = []
        for line in text.splitlines():
            if not line.strip():
                break  # the description follows
            name, separator, value = line.partition(":")
            if separator and not line[0].isspace():
                headers.append((name.strip().lower(), value.strip()))
        return headers

    def _header(self, name: str) -> str:
        return next((value for key, value in self._headers if key == name.lower()), "")

    def _egg_file(self) -> str:
        """An ``.egg-info`` may be a file, which is the metadata itself."""
        return self.read("") if self.path.endswith(".egg-info") and os.path.isfile(self.path) else ""

    def _is_there(self, name: str) -> bool:
        # `read_text` answers `None` also for a file that may not be read, and for a directory.
        with contextlib.suppress(Exception):
            return bool(name) and os.path.lexists(os.path.join(self.path, name))
        return False


def installed_distributions(damages: list[Damage]) -> Iterator[InstalledDistribution]:
    """Every distribution on the path, each name once: the first on the path counts, as for imports.

    Args:
        damages: where damages are added.
    """
    seen: dict[str, InstalledDistribution] = {}
    for found in _found(damages):
        distribution = InstalledDistribution(found, damages)
        if Path(distribution.path).name.startswith("~"):
            damages.append(Damage(distribution.path, "it is the rest of an installation that pip has not finished; delete it"))
            continue
        first = seen.setdefault(distribution.key, distribution)
        if first is distribution:
            yield distribution
        elif first.path != distribution.path and os.path.dirname(first.path) == os.path.dirname(distribution.path):
            # On another part of the path it is only hidden, which is usual. In one directory, either may be the real one.
            distribution.damaged("", f"there is also {Path(first.path).name!r}, which counts")


def normalised(name: str) -> str:
    """A name of a distribution as it is compared: case and separators do not count.

    >>> normalised("EventCore.Core_")
    'eventcore-core-'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def _found(damages: list[Damage]) -> Iterator[Distribution]:
    from importlib.metadata import DistributionFinder  # as in `discovery`

    # Each entry of the path by itself, and each place once: an environment may name one twice.
    entries = {
        os.path.realpath(place): entry
        for entry in reversed(sys.path)
        if isinstance(entry, str) and (place := absolute_path(entry)) is not None
    }
    for finder in sys.meta_path:
        find: Any = getattr(finder, "find_distributions", None)
        if find is None:
            continue
        contexts: Iterable[Mapping[str, Any]] = [{}]
        if finder is PathFinder:
            contexts = [{"path": [entry]} for entry in reversed(entries.values())]
        for context in contexts:
            try:
                found: list[Distribution] = list(find(DistributionFinder.Context(**context)))
            except Exception as error:  # noqa: BLE001  # a finder of another tool, or a damaged archive, may raise anything
                where = text_of(context.get("path", [type(finder).__qualname__])[0])
                damages.append(Damage(where, f"its distributions cannot be listed: {describe_error(error)}"))
                continue
            yield from found
