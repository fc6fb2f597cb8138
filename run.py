"""Run a session of noxfile.py on a machine that has only Python and pip.

``python3 run.py demo`` runs the demo, ``python3 run.py tests`` the tests. Words after the name of
the session go to the session: ``python3 run.py demo --seconds 5``. Without a name, the sessions are
listed. Everything is installed below ``.nox``.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
UV = ROOT / ".nox" / "uv"
LAUNCHER = ROOT / ".nox" / "launcher"
PYTHON = LAUNCHER / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
# Settings of pip, and the variable that gives uv the same setting. uv reads none of pip's files and variables.
PIP_TO_UV = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "cert": ("SSL_CERT_FILE", " "),
}
# Python packages of the caller stay invisible to the sessions.
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
# Sessions use the interpreters of this machine; a missing one is reported and not downloaded.
ENVIRONMENT["UV_PYTHON_DOWNLOADS"] = "never"


def run(python: Path | str, *arguments: Path | str, **variables: str) -> None:
    """Run ``python`` with these arguments and additional variables; raise ``CalledProcessError`` if it fails."""
    subprocess.run([python, *arguments], check=True, env=ENVIRONMENT | variables)


def uv_settings() -> dict[str, str]:
    """Translate pip's index, links and certificates for uv; variables that are set already stay as they are."""
    shown = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False, env=ENVIRONMENT
    ).stdout
    settings: dict[str, str] = {}
    # pip shows its variables as ":env:.KEY"; they sort first because they take precedence over its files.
    for line in sorted(shown.splitlines()):
        key, _, value = line.partition("=")
        if (setting := key.rpartition(".")[2]) in PIP_TO_UV:
            variable, separator = PIP_TO_UV[setting]
            settings.setdefault(variable, separator.join(ast.literal_eval(value).split()))
    return {variable: value for variable, value in settings.items() if variable not in os.environ}


def make_launcher() -> None:
    """Make an environment that has nox and uv.

    Nothing is installed into the Python that runs this file: its owner may have locked it. That
    Python needs pip, but neither venv nor ensurepip, which Debian packages apart: uv makes the
    environment.
    """
    print(f"preparing {LAUNCHER.relative_to(ROOT)} (once)", flush=True)
    constraints = ("-c", ROOT / "constraints.txt")
    pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade", "--target", UV)
    run(sys.executable, *pip, *constraints, "uv")
    uv = (sys.executable, "-m", "uv")
    run(*uv, "venv", "--quiet", "--clear", "--python", sys.executable, LAUNCHER, PYTHONPATH=str(UV))
    run(*uv, "pip", "install", "--quiet", "--python", PYTHON, *constraints, "nox", "uv", PYTHONPATH=str(UV))


def has_launcher() -> bool:
    """Whether the environment has nox and uv, and its Python still exists."""
    try:
        found = subprocess.run([PYTHON, "-c", "import nox, uv"], capture_output=True, check=False, env=ENVIRONMENT)
    except OSError:
        return False
    return found.returncode == 0


def main() -> None:
    """Make the environment if it is missing, and run nox in it."""
    if sys.version_info < (3, 11):  # noqa: UP036 - an older Python may run this file and gets a clear message
        sys.exit(f"Python 3.11 or later is needed; this is {sys.version.split()[0]}")
    session, *arguments = sys.argv[1:] or ["--list"]
    if session in ("-h", "--help"):
        print(__doc__)
        return
    ENVIRONMENT.update(uv_settings())
    if not has_launcher():
        try:
            make_launcher()
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"could not prepare {LAUNCHER}: {error}")
    words = ["--list"] if session == "--list" else ["--session", session, "--", *arguments]
    command = [str(PYTHON), "-m", "nox", "--noxfile", str(ROOT / "noxfile.py"), *words]
    if os.name == "posix":
        # nox replaces this process, so that Ctrl-C reaches nox alone and nox ends the session in order.
        os.execve(PYTHON, command, ENVIRONMENT)
    sys.exit(subprocess.run(command, check=False, env=ENVIRONMENT).returncode)


if __name__ == "__main__":
    main()
