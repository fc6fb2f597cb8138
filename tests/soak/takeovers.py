"""Leaders and writers are stopped, continued, killed and cut off from the network; how long successors take is measured.

On PostgreSQL, each process has a network of its own, and half-way the primary is killed and a standby that lags is promoted.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from pathlib import Path
from time import monotonic
from typing import Final, TypeAlias, final
from urllib.parse import urlsplit

import msgspec

from eventcore import open_store
from tests.real_parts.postgres import PostgresServer
from tests.soak.crew import Crew, Member, Role
from tests.soak.database import of_postgres, of_sqlite
from tests.soak.logs import now, read_seen
from tests.soak.networks import Cable, Network, can_make_networks
from tests.soak.projector import LEASE, OUTSIDE, TALLY
from tests.soak.proof import Failover, Findings, prove_outside
from tests.soak.staging import CONNECTIONS, SETTINGS, Load, all_caught_up, crew_of, head, prepare, prove, until

_PROJECTORS: Final = 3
_WRITERS: Final = 4
# A successor takes over within the lease and these seconds.
_MARGIN: Final = 2.0
# Seconds until a leader that has been stopped or cut off is let go, if nobody has succeeded it.
_PATIENCE: Final = 8.0
_LOOK: Final = 0.05


Leaders: TypeAlias = Mapping[str, tuple[str, int]]
"""For each projection, who leads it (as the store names it, "" for nobody) and its position."""


class _Look(msgspec.Struct, frozen=True):
    head: int
    leaders: Leaders


@final
class _Watch:
    """Looks at the leaders and at the head, and measures how long successors and writers take."""

    def __init__(self, look: Callable[[], _Look]) -> None:
        self._look = look
        self._seconds: dict[str, list[float]] = {}
        self.longest_pause = 0.0

    async def look(self) -> _Look | None:
        """Return what the database says now, ``None`` while it does not answer."""
        with suppress(Exception):  # the server may be down, restarting or a standby
            return await asyncio.to_thread(self._look)
        return None

    async def successor(self, fault: str, since: float, before: Leaders) -> bool:
        """Wait until every one of these projections has another leader, and note the seconds since the fault."""
        waiting = dict(before)
        while waiting and monotonic() - since < _PATIENCE:
            if (found := await self.look()) is not None:
                for name, (owner, _) in list(waiting.items()):
                    if found.leaders[name][0] not in ("", owner):
                        self._seconds.setdefault(fault, []).append(monotonic() - since)
                        del waiting[name]
            await asyncio.sleep(_LOOK)
        return not waiting

    async def writing(self) -> None:
        """Measure the longest time without a new event, until cancelled."""
        last, since = -1, monotonic()
        while True:
            if (found := await self.look()) is not None and found.head != last:
                self.longest_pause = max(self.longest_pause, monotonic() - since if last >= 0 else 0)
                last, since = found.head, monotonic()
            await asyncio.sleep(_LOOK)

    def report(self, findings: Findings, limit: float | None) -> None:
        """Add the number, the median and the worst time of takeovers after each fault; one above ``limit`` is a violation."""
        for fault, seconds in sorted(self._seconds.items()):
            ordered = sorted(seconds)
            findings.counts[f"takeovers after {fault}"] = len(ordered)
            findings.counts[f"takeovers after {fault}: median, ms"] = round(1000 * ordered[len(ordered) // 2])
            findings.counts[f"takeovers after {fault}: worst, ms"] = round(1000 * ordered[-1])
            if limit is not None and ordered[-1] > limit:
                findings.violated(f"a takeover after {fault} took {ordered[-1]:.2f} s, more than {limit:g} s")


@final
class _Faults:
    """Injects one fault after another into the leader of projections, and meanwhile others into writers."""

    def __init__(self, crew: Crew, watch: _Watch, choice: random.Random, cables: Mapping[str, Cable], network: Network | None):
        self._crew = crew
        self._watch = watch
        self._choice = choice
        self._cables = cables
        self._network = network

    async def inject(self, until: float, findings: Findings, *, must_succeed: bool) -> None:
        """Inject faults until the time ``until``; with ``must_succeed``, a leader without a successor is a violation."""
        while monotonic() < until:
            kinds = ["stopped", "killed", *(["cut off"] if self._network is not None else [])]
            await asyncio.gather(
                self._leader(self._choice.choice(kinds), findings, must_succeed), self._writer(self._choice.choice(kinds))
            )
            await asyncio.sleep(self._choice.uniform(0.3, 1.5))

    async def _leader(self, kind: str, findings: Findings, must_succeed: bool) -> None:
        found = await self._watch.look()
        leading = (
            []
            if found is None
            else [(member, led) for member in self._crew.of("projector") if (led := self._led(member, found))]
        )
        if not leading:
            await asyncio.sleep(0.2)
            return
        member, leaders = self._choice.choice(leading)
        since = monotonic()
        async with self._hit(member, kind):
            if not await self._watch.successor(f"a leader is {kind}", since, leaders):
                self._crew.counts[f"no takeover while a leader is {kind}"] += 1
                if must_succeed:
                    findings.violated(
                        f"{', '.join(leaders)}: no successor within {_PATIENCE:g} s after {member.name} was {kind}"
                    )
            await asyncio.sleep(self._choice.uniform(0, 1.5))

    @staticmethod
    def _led(member: Member, found: _Look) -> Leaders:
        return {name: held for name, held in found.leaders.items() if f":{member.pid}:" in held[0]}

    async def _writer(self, kind: str) -> None:
        async with self._hit(self._crew.pick("writer"), kind):
            await asyncio.sleep(self._choice.uniform(0.5, 4))

    @asynccontextmanager
    async def _hit(self, member: Member, kind: str) -> AsyncIterator[None]:
        if kind == "killed":
            self._crew.replace(member)
            yield
            return
        self._crew.counts[f"{member.role} {kind}"] += 1
        if kind == "stopped":
            member.signal(signal.SIGSTOP)
            try:
                yield
            finally:
                member.signal(signal.SIGCONT)
            return
        assert self._network is not None
        cable = self._cables[member.name]
        await asyncio.to_thread(cable.pull)
        try:
            yield
        finally:
            await asyncio.to_thread(cable.plug_in, self._network)


async def on_postgres(directory: Path, load: Load, program: Path) -> Findings:
    """Run the scenario on one version of PostgreSQL and return its findings."""
    findings, choice = Findings(), random.Random(load.seed)
    crew = Crew(directory, choice)
    async with AsyncExitStack() as stack:
        network = stack.enter_context(Network.made()) if can_make_networks() else None
        addresses = "127.0.0.1" if network is None else f"127.0.0.1,{network.address}"
        server = await asyncio.to_thread(
            lambda: PostgresServer(program, listen_addresses=addresses, max_connections=CONNECTIONS)
        )
        stack.enter_context(closing(server))
        if network is not None:
            with (server.data / "pg_hba.conf").open("a") as file:
                file.write(f"host all all {network.block} scram-sha-256\n")
            server.sql("SELECT pg_reload_conf()")
        database, url = await prepare(server)
        servers = [server]
        if (program.parent / "pg_basebackup").is_file():
            servers.append(
                await asyncio.to_thread(
                    lambda: PostgresServer(program, standby_of=server, listen_addresses=addresses, max_connections=CONNECTIONS)
                )
            )
            stack.enter_context(closing(servers[1]))
        watch = _Watch(lambda: _look_at_postgres(servers[-1] if promoted else servers[0], database))
        promoted: list[Failover] = []
        async with crew_of(crew, findings):
            cables = _start(crew, url, servers, network)
            faults = _Faults(crew, watch, choice, cables, network)
            await until(lambda: head(server, database) > 0, "the first event")
            writing = asyncio.create_task(watch.writing())
            await faults.inject(monotonic() + load.seconds / len(servers), findings, must_succeed=True)
            if len(servers) > 1:
                writing.cancel()
                await asyncio.wait([writing])
                promoted.append(await _fail_over(servers[0], servers[1], database))
                writing = asyncio.create_task(watch.writing())
                await faults.inject(monotonic() + load.seconds / 2, findings, must_succeed=True)
            writing.cancel()
            await asyncio.wait([writing])
            await crew.end("writer")
            current = servers[-1]
            inside = "SELECT position FROM eventcore.projections WHERE name IN ('tally', 'cold', 'unruly')"
            await all_caught_up(
                crew,
                lambda: head(current, database),
                lambda: [int(text) for text in current.sql(inside, database).split()],
                findings,
            )
            await crew.end("projector")
        stored = await of_postgres(current.url(database))
    watch.report(findings, LEASE + _MARGIN)
    findings.counts["longest pause of appends, ms"] = round(1000 * watch.longest_pause)
    findings.counts["standbys promoted"] = len(promoted)
    prove(directory, stored, findings, promoted[0] if promoted else None)
    if not promoted:
        prove_outside(read_seen(directory / OUTSIDE), stored.rows, findings)
    return findings


def _start(crew: Crew, url: str, servers: list[PostgresServer], network: Network | None) -> dict[str, Cable]:
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0]
    host = "127.0.0.1" if network is None else network.address
    hosts = ",".join(f"{host}:{server.port}" for server in servers)
    query = SETTINGS if len(servers) == 1 else f"target_session_attrs=primary&{SETTINGS}"
    everywhere = parts._replace(netloc=f"{login}@{hosts}", query=query).geturl()
    cables: dict[str, Cable] = {}
    crowd: tuple[tuple[Role, int], ...] = (("writer", _WRITERS), ("projector", _PROJECTORS))
    for role, count in crowd:
        for number in range(1, count + 1):
            cable = None if network is None else network.connect()
            member = crew.start_one(role, number, everywhere, () if cable is None else cable.within)
            if cable is not None:
                cables[member.name] = cable
    return cables


async def _fail_over(primary: PostgresServer, standby: PostgresServer, database: str) -> Failover:
    """Kill the primary, and promote a standby that has not received the last second."""
    behind = now()
    await asyncio.to_thread(standby.fall_behind)
    fork = await asyncio.to_thread(head, standby, database)
    await until(lambda: head(primary, database) > fork + 20, "events beyond the fork")
    await asyncio.to_thread(primary.stop, signal.SIGKILL)
    await asyncio.sleep(1)
    failover = Failover(fork, now(), behind)
    await asyncio.to_thread(standby.promote)
    await until(lambda: head(standby, database) > fork + 20, "new events after the promotion")
    # Workers find the new primary; leases that the standby has kept run out.
    await asyncio.sleep(LEASE + _MARGIN)
    return failover


def _look_at_postgres(server: PostgresServer, database: str) -> _Look:
    rows = server.sql(
        "SELECT '', (SELECT coalesce(max(position), 0) FROM eventcore.events), '' UNION ALL "
        "SELECT name, position, CASE WHEN leased_until > clock_timestamp() THEN owner ELSE '' END FROM eventcore.projections",
        database,
    ).splitlines()
    (_, head_position, _), *projections = (row.split("|") for row in rows)
    return _Look(int(head_position), {name: (owner, int(position)) for name, position, owner in projections})


async def on_sqlite(directory: Path, load: Load) -> Findings:
    """Run the scenario on SQLite and return its findings. A process that is stopped inside a transaction holds the file."""
    findings, choice = Findings(), random.Random(load.seed)
    crew = Crew(directory, choice)
    path = directory / "soak.db"
    url = f"sqlite:///{path}"
    async with open_store(url, exporters=[]):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(TALLY)
    watch = _Watch(lambda: _look_at_sqlite(path))
    async with crew_of(crew, findings):
        crew.start("writer", 2, url)
        crew.start("projector", _PROJECTORS, url)
        await until(lambda: _look_at_sqlite(path).head > 0, "the first event")
        await _Faults(crew, watch, choice, {}, None).inject(monotonic() + load.seconds, findings, must_succeed=False)
        await crew.end("writer")
        await all_caught_up(
            crew,
            lambda: _look_at_sqlite(path).head,
            lambda: [position for _, position in _look_at_sqlite(path).leaders.values()],
            findings,
        )
        await crew.end("projector")
    stored, integrity = of_sqlite(path)
    if integrity != "ok":
        findings.violated(f"the file is damaged: {integrity}")
    watch.report(findings, None)
    prove(directory, stored, findings)
    prove_outside(read_seen(directory / OUTSIDE), stored.rows, findings)
    return findings


def _look_at_sqlite(path: Path) -> _Look:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1)) as database:
        [(head_position,)] = database.execute("SELECT coalesce(max(position), 0) FROM events")
        rows = database.execute("SELECT name, owner, position FROM projections").fetchall()
    return _Look(head_position, {name: (owner, position) for name, owner, position in rows})
