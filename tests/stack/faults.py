"""How each fault is brought about in a running stack. Each is a block: at its end, it takes away what is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final, TypeAlias

from tests.real_parts.waiting import wait_until
from tests.stack.native import SERVICE, Stack

Fault: TypeAlias = Callable[[Stack], AbstractContextManager[None]]

_MIB: Final = 1 << 20
# With 110 MiB in the reserve, the disk is well; with 150 MiB more, less than the 512 MiB are free that the check wants.
_DISK, _RESERVE, _LOGS = 750 * _MIB, 110 * _MIB, 150 * _MIB
_SLOW: Final = """
    CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.06); RETURN NEW; END $$;
    CREATE TRIGGER audit BEFORE INSERT ON balances FOR EACH ROW EXECUTE FUNCTION audit()
"""


@contextmanager
def nothing(_: Stack) -> Iterator[None]:
    """No fault."""
    yield


@contextmanager
def service_killed(stack: Stack) -> Iterator[None]:
    """The service is asked to end, and nobody starts it again."""
    stack.processes["service"].stop(patience=10)
    yield


@contextmanager
def postgres_killed(stack: Stack) -> Iterator[None]:
    """The database server ends at once, with all its connections."""
    stack.postgres.stop(signal.SIGQUIT)
    yield


@contextmanager
def collector_killed(stack: Stack) -> Iterator[None]:
    """The Collector is killed."""
    stack.processes["collector"].stop(signal.SIGKILL)
    yield


def session_left_open(statement: str) -> Fault:
    """A session has begun a transaction, and does not end it: a person at a console who went to lunch."""

    @contextmanager
    def hold(stack: Stack) -> Iterator[None]:
        holder = stack.hold(statement)
        try:
            yield
        finally:
            holder.kill()
            holder.wait()

    return hold


@contextmanager
def events_refused(stack: Stack) -> Iterator[None]:
    """For a while, the table of the read model refuses every event."""
    stack.sql("ALTER TABLE balances ADD CONSTRAINT poison CHECK (position < 0) NOT VALID")
    wait_until(lambda: stack.sql("SELECT count(*) FROM eventcore.dead_letters") != "0", timeout=30, message="a dead letter")
    stack.sql("ALTER TABLE balances DROP CONSTRAINT poison")
    yield


@contextmanager
def projection_failed(stack: Stack) -> Iterator[None]:
    """The table refuses every event until the projection has failed in each worker; then it would take them again."""
    stack.sql("ALTER TABLE balances ADD CONSTRAINT poison CHECK (position < 0) NOT VALID")
    failed = 'sum(eventcore_projections_state{state="failed"}) == 2'
    wait_until(lambda: stack.query(failed), timeout=60, message="the projection has failed in both workers", step=0.2)
    stack.sql("ALTER TABLE balances DROP CONSTRAINT poison")
    yield


@contextmanager
def handler_slow(stack: Stack) -> Iterator[None]:
    """Somebody has put a slow trigger on the table of the read model."""
    stack.sql(_SLOW)
    yield


@contextmanager
def import_runs(stack: Stack) -> Iterator[None]:
    """A job writes the streams that every transfer writes."""
    stack.start_job("tests.stack.importing")
    yield


def released(application: str = SERVICE, **settings: str) -> Fault:
    """Another release of the service is started, with these variables."""

    @contextmanager
    def start(stack: Stack) -> Iterator[None]:
        stack.release(application, **settings)
        yield

    return start


def worker_frozen(*, holder: bool) -> Fault:
    """One worker is stopped, as if it were swapped out: the one that holds the port of the metrics, or another one."""

    @contextmanager
    def freeze(stack: Stack) -> Iterator[None]:
        worker = next(each for each in stack.workers() if stack.holds_metrics(each) is holder)
        worker.suspend()
        try:
            yield
        finally:
            if worker.is_running():
                worker.kill()

    return freeze


@contextmanager
def on_a_small_disk(stack: Stack) -> Iterator[None]:
    """The service has its events in a file, on a disk with a reserve: a file that can be deleted in an emergency.

    Mounting the disk needs root.
    """
    stack.disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "eventcore", stack.disk], check=True)
    try:
        _allocate(stack, "ballast", _RESERVE)
        stack.release("tests.stack.releases:on_a_file", BANK_FILE=str(stack.disk / "bank.db"))
        yield
    finally:
        # The service has the file open still.
        subprocess.run(["umount", "--lazy", stack.disk], check=True)


@contextmanager
def disk_filled(stack: Stack) -> Iterator[None]:
    """Another program fills the disk with its logs."""
    _allocate(stack, "other.log", _LOGS)
    yield


def _allocate(stack: Stack, name: str, size: int) -> None:
    with (stack.disk / name).open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
