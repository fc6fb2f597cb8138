"""PostgreSQL servers and pgbouncer as child processes; if root runs the tests, an unprivileged user runs the servers."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from itertools import count
from pathlib import Path
from time import monotonic, sleep
from typing import Final
from urllib.parse import urlsplit

from tests.real_parts.ports import free_ports
from tests.real_parts.server import ServerFailed, ServerProcess
from tests.real_parts.waiting import wait_until

PASSWORD: Final = "not-for-messages"
_START: Final = 20.0
# A backend that outlives its killed server ends as soon as it notices; until then, a new server refuses the data.
_OLD_BACKENDS: Final = 30.0
_BACKENDS_REMAIN: Final = "pre-existing shared memory block"


class _Databases:
    """The databases of one server; each test makes its own."""

    def __init__(self, dsn: str, program: str | Path) -> None:
        self._dsn = dsn
        self._psql = program
        self._numbers = count(1)

    def url(self, database: str = "postgres") -> str:
        """Return the URL of one of its databases, for a superuser."""
        return urlsplit(self._dsn)._replace(path=f"/{database}").geturl()

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run a statement with psql and return its output."""
        done = subprocess.run(
            [str(self._psql), "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", self.url(database), "-c", statement],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def new_database(self, options: str = "") -> str:
        """Make a new, empty database and return its name."""
        name = f"eventcore_test_{os.getpid()}_{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name} {options}")
        return name


class ForeignPostgres(_Databases):
    """The running server that EVENTCORE_TEST_POSTGRES names; tests that stop or start servers do not use it."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn, shutil.which("psql") or "psql")


class PostgresServer(_Databases):
    """A new server on a free port, with a password; ``close`` stops it and removes its files.

    Args:
        program: the path of ``postgres``; ``initdb`` and ``psql`` are in the same folder.
        standby_of: the primary that this server copies, and follows until ``promote``.
        settings: server settings that replace the defaults.
    """

    def __init__(self, program: Path, *, standby_of: "PostgresServer | None" = None, **settings: str) -> None:
        self._user = _unprivileged()
        # Not below pytest's folders: the unprivileged user may not enter them.
        self._directory = Path(tempfile.mkdtemp(prefix="eventcore-postgres-"))
        self._directory.chmod(0o755)
        self._bin = _reachable(program.parent, self._directory, self._user)
        self.data = self._directory / "data"
        self.data.mkdir(mode=0o700)
        _give(self.data, self._user)
        [self.port] = free_ports(1)
        super().__init__(f"postgresql://postgres:{PASSWORD}@127.0.0.1:{self.port}/postgres", self._bin / "psql")
        self._settings = {"max_connections": "60", "shared_buffers": "64MB", **settings}
        self._process: ServerProcess | None = None
        if standby_of is None:
            self._initialise()
        else:
            self._copy(standby_of)
        self.start()

    def start(self) -> None:
        """Start the server, also again after ``stop``, at the same address. After SIGKILL, wait for the end of its backends."""
        deadline = monotonic() + _OLD_BACKENDS
        while True:
            try:
                return self._start()
            except ServerFailed as failure:
                if _BACKENDS_REMAIN not in str(failure) or monotonic() > deadline:
                    raise
            sleep(0.05)

    def _start(self) -> None:
        command = [str(self._bin / "postgres"), "-D", str(self.data), "-p", str(self.port)]
        for name, value in {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", **self._settings}.items():
            command += ["-c", f"{name}={value}"]
        self._process = ServerProcess(command, self._directory / "log.txt", _environment(), self._directory, self._user)
        self._process.wait_until_ready(self._answers, _START)

    def stop(self, ending: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT ends sessions in order, SIGQUIT stops at once and the next start recovers."""
        if self._process is not None:
            self._process.stop(ending)
            self._process = None

    def fall_behind(self) -> None:
        """On a standby: stop receiving from the primary."""
        self.sql("ALTER SYSTEM SET primary_conninfo = ''")
        self.sql("SELECT pg_reload_conf()")
        wait_until(lambda: self.sql("SELECT count(*) FROM pg_stat_wal_receiver") == "0", message="the standby receives nothing")

    def promote(self) -> None:
        """On a standby: become a primary."""
        assert self.sql("SELECT pg_promote()") == "t"

    def close(self) -> None:
        """Stop the server and remove its files."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _initialise(self) -> None:
        password = self._directory / "password"
        password.write_text(PASSWORD)
        command = [str(self._bin / "initdb"), "-D", str(self.data), "-U", "postgres", "-A", "scram-sha-256"]
        command += [f"--pwfile={password}", "-E", "UTF8", "--no-locale", "--no-sync"]
        self._run(command)

    def _copy(self, primary: "PostgresServer") -> None:
        command = [str(self._bin / "pg_basebackup"), "-D", str(self.data), "-d", primary.url(), "-R", "-c", "fast", "--no-sync"]
        self._run([*command, "-X", "stream"])

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(
            command,
            env=_environment(),
            cwd=self._directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            user=self._user.pw_uid if self._user is not None else None,
            group=self._user.pw_gid if self._user is not None else None,
            extra_groups=[] if self._user is not None else None,
        )
        if done.returncode:
            raise ServerFailed(f"{command!r} ended with {done.returncode}\n{done.stdout}{done.stderr}")

    def _answers(self) -> bool:
        command = [str(self._bin / "psql"), "-XAtq", "-d", self.url(), "-c", "SELECT 1"]
        return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0


class PgBouncer:
    """pgbouncer in transaction mode, in front of one server.

    Args:
        program: the path of ``pgbouncer``.
        server: where it connects to.
        settings: further lines of its configuration.
    """

    def __init__(self, program: Path, server: PostgresServer, settings: str = "") -> None:
        self._user = _unprivileged()
        self._directory = Path(tempfile.mkdtemp(prefix="eventcore-pgbouncer-"))
        self._directory.chmod(0o755)
        [self.port] = free_ports(1)
        (self._directory / "users.txt").write_text(f'"postgres" "{PASSWORD}"\n')
        configuration = self._directory / "pgbouncer.ini"
        configuration.write_text(
            f"""
            [databases]
            * = host=127.0.0.1 port={server.port}
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {self.port}
            unix_socket_dir =
            auth_type = scram-sha-256
            auth_file = {self._directory / "users.txt"}
            pool_mode = transaction
            default_pool_size = 3
            max_client_conn = 100
            {settings}
            """
        )
        self._process = ServerProcess(
            [str(program), str(configuration)], self._directory / "log.txt", _environment(), self._directory, self._user
        )
        self._process.wait_until_ready(self._accepts, 10)

    def url(self, database: str) -> str:
        """Return the URL of a database, through pgbouncer."""
        return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{self.port}/{database}?statement_cache=off"

    def close(self) -> None:
        """Stop the server and remove its files."""
        self._process.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _accepts(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False


def named_server() -> ForeignPostgres | None:
    """Return the server that EVENTCORE_TEST_POSTGRES names, if it is set."""
    dsn = os.environ.get("EVENTCORE_TEST_POSTGRES")
    return ForeignPostgres(dsn) if dsn else None


def _unprivileged() -> pwd.struct_passwd | None:
    """Return the user who runs servers if root runs the tests."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ServerFailed("PostgreSQL refuses to run as root, and there is no user postgres or nobody")


def _give(path: Path, user: pwd.struct_passwd | None) -> None:
    if user is not None:
        os.chown(path, user.pw_uid, user.pw_gid)


def _reachable(programs: Path, directory: Path, user: pwd.struct_passwd | None) -> Path:
    """Return the folder of programs, or a copy of it if ``user`` may not read it."""
    if user is None:
        return programs
    command = ["test", "-x", str(programs / "postgres")]
    if subprocess.run(command, user=user.pw_uid, group=user.pw_gid, extra_groups=[], check=False).returncode == 0:
        return programs
    # The programs look for their libraries relative to the package: copy the whole package.
    installed = programs.parents[2]
    shutil.copytree(installed, directory / "programs", symlinks=True)
    return directory / "programs" / programs.relative_to(installed)


def _environment() -> dict[str, str]:
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
