"""``open_store``: from a URL and settings to a store, not open yet."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from eventcore.commands import DEFAULT_CACHE_BYTES
from eventcore.ground.arguments import check_seconds, one_of
from eventcore.health.settings import HealthSettings, configured_health
from eventcore.store.event_store import KEY_SECONDS, SLOW_COMMAND, EventStore
from eventcore.stores import Backend
from eventcore.stores.urls import as_backend
from eventcore.telemetry import Telemetry

# The longest that idempotency keys may be kept, in seconds.
_MAX_KEY_SECONDS: Final = 10 * 366 * 24 * 3600


def open_store(
    url: str | Backend,
    *,
    name: str = "default",
    telemetry: Telemetry | None = None,
    exporters: Sequence[str] | None = None,
    config: Mapping[str, Any] | Path | str | None = None,
    on_config_error: Literal["raise", "log"] = "raise",
    max_event_bytes: int = 1 << 20,
    migrate: bool = True,
    timeout: float | None = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    idempotency_ttl: float = KEY_SECONDS,
    slow_command: float | None = SLOW_COMMAND,
    open_timeout: float = 0.0,
    close_timeout: float = 10.0,
    health: HealthSettings | None = None,
) -> EventStore:
    """Create a store. Use it with ``async with``, which opens it, and closes it at the end of the block.

    Nothing is connected or read before ``async with``, which therefore raises the errors of the store and of the configuration.

    Args:
        url: one of these, or a backend of your own that is not open yet (see ``eventcore.stores.Backend``):

            - ``"memory:"``
            - ``"sqlite:///relative.db"`` or ``"sqlite:////absolute.db"``, with ``?synchronous=normal`` and
              ``&busy_timeout=5`` (seconds) if wanted.
            - ``"postgresql://user:password@host:port/database"``, with ``?schema=eventcore``, ``&pool=4``
              (connections for reading), ``&timeout=10`` (seconds for one call or command, reconnecting included),
              ``&statement_cache=off`` (for pgbouncer in transaction mode), ``&listen=off`` (where notifications
              are not delivered), ``&application_name=`` and ``&options=`` (for the server's sessions), and the
              settings that asyncpg reads itself, such as ``&sslmode=``.

        name: the value of the label ``store`` on every metric of this store; not empty.
        telemetry: the telemetry to record to, which several stores may share. The store does not close it.
            Left out, the store creates telemetry and closes it.
        exporters: names of the exporters to load, ``"all"`` or ``"none"``. Left out, the configuration
            decides. Not allowed together with ``telemetry``.
        config: the tables of ``eventcore.toml`` as a mapping, or the path of a file to read instead of the
            default one. Not allowed together with ``telemetry``.
        on_config_error: ``"raise"``, or ``"log"`` to log faults in the configuration and go on without them.
        max_event_bytes: the largest event to accept, in bytes of JSON, 1 or more.
        migrate: whether opening the store may create or upgrade the schema on a server. If false, run
            ``eventcore migrate``. A backend of your own decides this itself.
        timeout: seconds for each ``execute`` that names no timeout; ``None`` for no limit but that of the URL.
        cache_bytes: memory for what commands keep of the streams that they used last, in bytes, 0 or more. A stream whose
            events fit into a quarter of it is not read again; a larger one is read page by page.
        idempotency_ttl: seconds for which the store keeps the idempotency keys of commands, more than 0 and at most 10 years;
            by default 7 days.
        slow_command: seconds from which on a command is logged as slow, with its phases and its trace; ``None`` for never.
        open_timeout: seconds in which ``async with`` tries again while the server is not up yet, 0 or more. What waiting cannot
            mend, such as a wrong password or a missing database, fails at once.
        close_timeout: the most seconds that closing takes. Exporters whose backend gives no answer use all of them, so that
            nothing is lost by a short outage.
        health: when the checks of ``EventStore.health`` are not healthy, and which of them decide readiness. The table
            ``[health]`` of the configuration sets what this leaves at its default.

    Raises:
        InvalidStoreUrl: the URL names no store.
        MissingDependency: the store needs a package that is not installed.
        ValueError: an argument is out of its range or of another kind, or ``telemetry`` was passed with ``exporters`` or
            ``config``.
        ConfigurationError: by ``async with``, if the store creates the telemetry: the configuration has faults, all of which
            are listed. At once, if ``telemetry`` has been started: its table ``[health]`` has faults.
        StoreUnavailable, AccessDenied, IncompatibleStore: by ``async with``: the store cannot be reached or used.

    >>> import asyncio
    >>> from eventcore import Command, Event, StreamId, open_store
    >>> class Greeted(Event):
    ...     name: str
    >>> class Greet(Command[int]):
    ...     person: StreamId
    ...     def initial_state(self):
    ...         return 0
    ...     def apply(self, state, event):
    ...         return state + 1
    ...     def handle(self, state):
    ...         yield self.person, Greeted(name=str(self.person))
    >>> async def main():
    ...     async with open_store("memory:", exporters="none") as store:
    ...         result = await store.execute(Greet(person=StreamId("person-ada")))
    ...         return result.position, [event.event_type async for event in store.read_all()]
    >>> asyncio.run(main())
    (1, ['Greeted'])
    """
    if timeout is not None:
        check_seconds("timeout", timeout)
    check_seconds("open_timeout", open_timeout, or_0=True)
    check_seconds("close_timeout", close_timeout)
    check_seconds("idempotency_ttl", idempotency_ttl, at_most=_MAX_KEY_SECONDS)
    if slow_command is not None:
        check_seconds("slow_command", slow_command)
    if type(cache_bytes) is not int or cache_bytes < 0:
        raise ValueError(f"cache_bytes={cache_bytes!r}; expected a number of bytes, 0 or more")
    _check_kinds(name, telemetry, on_config_error, max_event_bytes, migrate, health)
    backend = as_backend(url, migrate=migrate)
    if telemetry is not None and (exporters is not None or config is not None):
        raise ValueError("exporters and config belong to the telemetry; give them to Telemetry(...), or leave telemetry out")
    owns_telemetry = telemetry is None
    if telemetry is None:
        telemetry = Telemetry(config=config, exporters=exporters, on_config_error=on_config_error)
    settings, faults = configured_health(telemetry.configuration, health)
    telemetry.add_faults(faults)
    return EventStore(
        backend,
        name,
        telemetry,
        owns_telemetry=owns_telemetry,
        max_event_bytes=max_event_bytes,
        timeout=timeout,
        cache_bytes=cache_bytes,
        idempotency_ttl=idempotency_ttl,
        slow_command=slow_command,
        open_timeout=open_timeout,
        close_timeout=close_timeout,
        health=settings,
    )


def _check_kinds(
    name: object, telemetry: object, on_config_error: object, max_event_bytes: object, migrate: object, health: object
) -> None:
    """Refuse at once what would fail later, somewhere else, or be taken for something else."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"name={name!r:.80}; expected a text that is not empty: it is the label store of all metrics")
    if telemetry is not None and not isinstance(telemetry, Telemetry):
        raise ValueError(f"telemetry={telemetry!r:.80}; expected a Telemetry, or None: the store then makes one")
    one_of("on_config_error", on_config_error, "raise", "log")
    if type(max_event_bytes) is not int or max_event_bytes < 1:
        raise ValueError(f"max_event_bytes={max_event_bytes!r:.80}; expected a number of bytes, 1 or more")
    if not isinstance(migrate, bool):
        raise ValueError(f"migrate={migrate!r:.80}; expected True or False")
    if health is not None and not isinstance(health, HealthSettings):
        raise ValueError(f"health={health!r:.80}; expected HealthSettings(…) of eventcore.health")
