"""Whether the file of a store can be written, and how to open it if not."""

from __future__ import annotations

import os
from urllib.parse import quote


def is_read_only(path: str) -> bool:
    """Whether this process may read the file and may not write it, or not create a write-ahead log in its directory."""
    if not os.path.exists(path):
        return False
    return not os.access(path, os.W_OK) or not (_is_in_use(path) or os.access(os.path.dirname(path) or ".", os.W_OK))


def location(path: str) -> tuple[str, bool]:
    """What to open as the database at ``path``, and whether that is a URI.

    A file in a directory that cannot be written is opened as immutable: SQLite then reads it without a write-ahead log and
    without locks. This is right as long as no other process writes the file.
    """
    if not is_read_only(path):
        return path, False
    immutable = "" if _is_in_use(path) else "&immutable=1"
    return f"file:{quote(path)}?mode=ro{immutable}", True


def _is_in_use(path: str) -> bool:
    return os.path.exists(f"{path}-wal")
