"""The real servers that tests run against: an OTLP collector, an OTLP read-back agent, Prometheus, PostgreSQL and pgbouncer.

Fixtures (``tests/conftest.py`` brings them to every test below ``tests/``):

``rotel`` → :class:`~tests.real_parts.rotel.Rotel`
    A new collector for each test (it starts in 50 ms).

    - ``rotel.grpc_endpoint``: ``"http://127.0.0.1:PORT"``
    - ``rotel.spans(name=None)`` → ``list[ReceivedSpan]``; ``rotel.points(name=None)`` → ``list[ReceivedPoint]``, oldest first
    - ``rotel.log()``: everything that the collector printed
    - ``rotel.stop()``, ``rotel.start()``: an outage and its end, at the same endpoint

``ddapm`` → :class:`~tests.real_parts.ddapm.DdapmTestAgent`
    One agent for the test session, cleared before each test.

    - ``ddapm.grpc_endpoint``
    - ``ddapm.spans(name=None)``, ``ddapm.points(name=None)`` as above
    - ``ddapm.metrics()``, ``ddapm.traces()``: the export requests as parsed OTLP JSON (ids in base64), one for each call
    - ``ddapm.clear()``

``otel_collector``, ``collector_to_jaeger`` → :class:`~tests.real_parts.collector.Collector`
    The OpenTelemetry Collector, one for the test session, and one that sends its traces on to ``jaeger``.

    - ``grpc_endpoint``, ``spans(name=None)``, ``points(name=None)`` as above
    - ``requests(signal)``: everything received of ``metrics`` or ``traces``, as parsed OTLP JSON (ids in hexadecimal)
    - ``page()``: the metrics received, as the Collector shows them to Prometheus

``jaeger`` → :class:`~tests.real_parts.collector.Jaeger`
    One Jaeger for the test session; ``trace(trace_id)`` returns the spans of a trace.

``prometheus_server(*targets, metrics_path="/metrics", scrape_interval=0.2)`` → :class:`~tests.real_parts.prometheus.Prometheus`
    A function that starts a server that scrapes ``"127.0.0.1:PORT"`` targets.

    - ``server.wait_until_up(timeout=20)``: until the last scrape of every target succeeded
    - ``server.query(promql)`` → ``list[Sample]`` (``.labels`` without ``job`` and ``instance``, ``.value``)
    - ``server.value(promql)``: the value of the only sample
    - ``server.targets()``: the targets with their health and last error

``promtool_check(text)`` → :class:`~tests.real_parts.prometheus.PromtoolResult`
    Runs ``promtool check metrics`` on a page in the plain text format; ``.ok``, ``.output``, ``.returncode``.

``newest_postgres``, ``debian_postgres`` → :class:`~tests.real_parts.postgres.PostgresServer`
    One server each for the test session: the newest version on PyPI, and Debian's. With
    ``EVENTCORE_TEST_POSTGRES`` (the DSN of a superuser) the first is that server, and tests of the second are skipped.

    - ``server.new_database(options="")`` makes a database and returns its name; ``server.url(database)``: its URL
    - ``server.sql(statement, database="postgres")``: the output of psql

``start_postgres(standby_of=None, **settings)`` → ``PostgresServer``
    A function that starts servers for one test: ``stop(signal)``, ``start()``, ``fall_behind()``, ``promote()``.

``start_pgbouncer(server)`` → :class:`~tests.real_parts.postgres.PgBouncer`
    A function that starts pgbouncer in transaction mode in front of a server; ``url(database)``.

``chromium`` → ``Path``
    The program of the browser, for Python's ``playwright``.

``wait_until(condition, timeout=10, message="")`` polls a function until its result is true, and returns the result.
All of these functions block: an async test whose event loop must run meanwhile uses ``await asyncio.to_thread(...)``.

A part is looked for in this order: a variable (``EVENTCORE_ROTEL``, ``EVENTCORE_DDAPM_TEST_AGENT``, ``EVENTCORE_PROMETHEUS``,
``EVENTCORE_PROMTOOL``, ``EVENTCORE_POSTGRES``, ``EVENTCORE_DEBIAN_POSTGRES``, ``EVENTCORE_PGBOUNCER``, ``EVENTCORE_CHROMIUM``:
the path of the program), the folder ``.nox/parts``, which ``tests/real_parts/install.py`` fills, the current environment, the
search path. A part that is missing skips its tests, or fails them with ``EVENTCORE_REQUIRE_COMPONENTS=1``. The Collector and
Jaeger are built by ``tests/real_parts/go/build.py`` where Go is installed; they skip their tests unless
``EVENTCORE_REQUIRE_GO_PARTS=1``.
"""

from tests.real_parts.collector import Collector, Jaeger
from tests.real_parts.ddapm import DdapmTestAgent
from tests.real_parts.finding import PartMissing, find_part
from tests.real_parts.ports import free_ports
from tests.real_parts.prometheus import Prometheus, PromtoolResult, Sample
from tests.real_parts.received import ReceivedPoint, ReceivedSpan
from tests.real_parts.rotel import Rotel
from tests.real_parts.waiting import wait_until

__all__ = [
    "Collector",
    "DdapmTestAgent",
    "Jaeger",
    "PartMissing",
    "Prometheus",
    "PromtoolResult",
    "ReceivedPoint",
    "ReceivedSpan",
    "Rotel",
    "Sample",
    "find_part",
    "free_ports",
    "wait_until",
]
