"""Build the real parts that are written in Go: ``python tests/real_parts/go/build.py [PART ...]``.

Each part has a module of its own in a folder below this one, because the parts need different versions of the same packages.
A program is built once a machine, into ``~/.cache/eventcore-parts/PART-VERSION``; the tests find it there. All of them take
ten to thirty minutes on two cores the first time. Without Go nothing is built, and the tests use other parts.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).parent
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eventcore-parts"

# The module whose version names the folder, and the programs with their packages and build tags.
PARTS: Final[dict[str, tuple[str, dict[str, str], str]]] = {
    "collector": ("go.opentelemetry.io/collector/otelcol", {"otelcol": "."}, ""),
    "jaeger": ("github.com/jaegertracing/jaeger", {"all-in-one": "github.com/jaegertracing/jaeger/cmd/all-in-one"}, ""),
    "prometheus": (
        "github.com/prometheus/prometheus",
        {
            "prometheus": "github.com/prometheus/prometheus/cmd/prometheus",
            "promtool": "github.com/prometheus/prometheus/cmd/promtool",
        },
        # Without service discovery in clouds, which takes most of the time. The web pages are left out, too.
        "remove_all_sd",
    ),
}


def program_of(part: str, name: str) -> Path:
    """Where a program of a part is, or would be once it is built."""
    module = PARTS[part][0]
    found = re.search(rf"^\s*{re.escape(module)} (v\S+)", (_HERE / part / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise LookupError(f"{_HERE / part / 'go.mod'} requires no {module}")
    return CACHE / f"{part}-{found[1]}" / name


def build(part: str) -> None:
    """Build the programs of a part that are missing, with two processes at most."""
    _, programs, tags = PARTS[part]
    for name, package in programs.items():
        target = program_of(part, name)
        if target.is_file():
            continue
        print(f"building {target}", flush=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f"{name}.{os.getpid()}")
        command = ["go", "build", "-C", str(_HERE / part), "-p", "2", "-buildvcs=false", "-ldflags", "-s -w", "-tags", tags]
        environment = os.environ | {"GOMAXPROCS": "2", "GOFLAGS": "-mod=readonly"}
        try:
            subprocess.run([*command, "-o", str(unfinished), package], check=True, env=environment)
            # One step: another build of the same part, or a test, never sees half a program.
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)


def main(*parts: str) -> int:
    """Build ``parts``, or all; a part that does not build leaves the others alone."""
    if shutil.which("go") is None:
        print("go is not installed: nothing is built, and the tests use other parts")
        return 0
    failed: list[str] = []
    for part in parts or PARTS:
        try:
            build(part)
        except subprocess.CalledProcessError:
            failed.append(part)
    if failed:
        print(f"not built: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
