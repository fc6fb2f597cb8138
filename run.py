"""Runs a session of noxfile.py on a machine that has only Python and pip: ``python3 run.py demo``, ``python3 run.py tests``.

Everything is installed below ``.nox``. What follows the name goes to the session: ``python3 run.py demo --seconds 5``.
Without a name it lists the sessions.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
LAUNCHER = ROOT / ".nox" / "launcher"
PYTHON = LAUNCHER / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
# The caller's own packages are none of the sessions' business.
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}


def run(python: Path | str, *arguments: Path | str, **variables: str) -> None:
    subprocess.run([python, *arguments], check=True, env=ENVIRONMENT | variables)


def pip_install(python: Path | str, *arguments: Path | str) -> None:
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", ROOT / "constraints.txt", *arguments)


def make_launcher() -> None:
    """Make an environment with nox; the system's own, which its owner may have locked, is left as it is."""
    print(f"preparing {LAUNCHER.relative_to(ROOT)} (once)", flush=True)
    if importlib.util.find_spec("ensurepip") is not None:
        run(sys.executable, "-m", "venv", "--clear", LAUNCHER)
    else:
        # Debian's Python comes without what venv needs; virtualenv brings it.
        tools = LAUNCHER.with_name("virtualenv")
        pip_install(sys.executable, "--upgrade", "--target", tools, "virtualenv")
        run(sys.executable, "-m", "virtualenv", "--quiet", "--clear", LAUNCHER, PYTHONPATH=str(tools))
    pip_install(PYTHON, "nox", "virtualenv")


def has_nox() -> bool:
    """Whether the environment is complete, and its Python still there."""
    try:
        return subprocess.run([PYTHON, "-c", "import nox"], capture_output=True, check=False, env=ENVIRONMENT).returncode == 0
    except OSError:
        return False


def main() -> None:
    """Make the environment where it is missing, and hand over to nox in it."""
    if sys.version_info < (3, 11):  # noqa: UP036 - any Python may start this, and is told what is needed
        sys.exit(f"Python 3.11 or later is needed; this is {sys.version.split()[0]}")
    session, *rest = sys.argv[1:] or ["--list"]
    if session in ("-h", "--help"):
        print(__doc__)
        return
    if not has_nox():
        try:
            make_launcher()
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"could not prepare {LAUNCHER}: {error}")
    words = ["--list"] if session == "--list" else ["--session", session, "--", *rest]
    command = [str(PYTHON), "-m", "nox", "--noxfile", str(ROOT / "noxfile.py"), *words]
    if os.name == "posix":
        # In this process's place, so that Ctrl-C reaches nox alone and it ends in order.
        os.execve(PYTHON, command, ENVIRONMENT)
    sys.exit(subprocess.run(command, check=False, env=ENVIRONMENT).returncode)


if __name__ == "__main__":
    main()
