"""Prints the table of planted faults."""

from __future__ import annotations

import sys

from tests.testing.exporters.planted import PLANTED, run


def main() -> int:
    """Print the table: each planted fault, whether the check that is meant has caught it, and how many others did, too."""
    failed = run(PLANTED, whole=True)
    missed = [name for name, (_, check) in PLANTED.items() if check not in failed.get(name, ())]
    for name, (_, check) in PLANTED.items():
        found = failed.get(name, set())
        print(f"| {name} | `{check}` | {'caught' if check in found else 'MISSED'} | {len(found - {check})} |")
    print(f"{len(PLANTED)} planted faults, {len(PLANTED) - len(missed)} caught by the check that is meant for them")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
