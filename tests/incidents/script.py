"""The nine incidents. Each one happens to a service of its own, and says what its operators are expected to see."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from tests.incidents.injecting import POISONED, append_lock_held, away, events_locked, handler_broken, killed, terminate
from tests.incidents.observing import Row, Watch
from tests.incidents.staging import Service, Stage, load
from tests.real_parts import ReceivedSpan, wait_until
from tests.real_parts.postgres import PASSWORD

COMMITTED: Final = 'eventcore_commands_total{outcome="committed"}'
# What is only in URLs and must not be printed, beside the password of the database.
WRONG_PASSWORD: Final = "s3cr3t-and-wrong"
GIVEN_UP: Final = 'eventcore_projections_events_total{projection="balances",outcome="failed"}'
ERRORS: Final = 'eventcore_commands_total{outcome="error"}'


def _failed(span: ReceivedSpan) -> bool:
    return span.name.startswith("execute ") and span.status == "error"


def _finish(watch: Watch) -> Row:
    watch.row.seconds = time.monotonic() - watch.begun
    for password in (PASSWORD, WRONG_PASSWORD):
        watch.expect("no password in the log", password not in watch.service.log())
    return watch.row


def _wait_for_commands(service: Service) -> None:
    wait_until(lambda: (service.metric(COMMITTED) or 0) > 5)


def server_killed(stage: Stage) -> Row:
    """The database server is killed under load, and is back after a few seconds."""
    with stage.service() as service, load(service):
        watch = Watch("server killed", service)
        up = "eventcore_store_up"
        _wait_for_commands(service)
        wait_until(lambda: service.metric(up) == 1)
        watch.before(up, ERRORS)
        watch.begin()
        with killed(stage.server):
            watch.health("readyz", 503, 10, check="store")
            watch.always("livez", 200, 1)
            watch.moved(up, lambda value: value == 0)
            watch.rose(ERRORS)
            watch.logged("the store 'bank' is away", level="WARNING", count=1)
            watch.traced("a command that failed", _failed)
            watch.before(up)
        watch.health("readyz", 200, 20)
        watch.logged("the store 'bank' is back", within=10, level="WARNING", count=1)
        watch.moved(up, lambda value: value == 1)
        return _finish(watch)


def lock_and_pool(stage: Stage) -> Row:
    """Another session holds the append lock, and then the table, so that reads fill the pool."""
    with stage.service() as service, load(service), ThreadPoolExecutor(12) as others:
        watch = Watch("lock held and pool full", service)
        append = 'eventcore_health_status{check="append",status="healthy"}'
        waits = "eventcore_store_pool_wait_seconds"
        _wait_for_commands(service)
        wait_until(lambda: service.metric(append) == 1)
        watch.before(append, ERRORS)
        watch.begin()
        with append_lock_held(stage.server, service.database):
            watch.health("healthz", 200, 5, reason="another session may hold the append lock", check="append")
            watch.always("livez", 200, 1)
            watch.logged("slow command Deposit", within=10, level="WARNING", traced=True)
            watch.moved(append, lambda value: value == 0)
            watch.rose(ERRORS)
        watch.traced("an append that waited", lambda span: span.name == "append events" and _seconds(span) > 1)
        watch.health("readyz", 200, 15)
        with events_locked(stage.server, service.database):
            waiting = [
                others.submit(service.post, "transfers", source=f"source-{number}", target=f"target-{number}", amount=1)
                for number in range(12)
            ]
            watch.health("readyz", 503, 15)
            watch.health("healthz", 503, 10, reason="connection", check="pool")
            # Calls that waited for a connection for more than a second.
            watch.moved((f"{waits}_count", f'{waits}_bucket{{le="1.0"}}'), lambda value: value > 0)
        for answer in waiting:
            answer.result()
        watch.health("readyz", 200, 20)
        watch.traced("a command that failed", _failed)
        return _finish(watch)


def handler_stops(stage: Stage) -> Row:
    """A projection's handler fails, and its policy is to stop."""
    with stage.service(BANK_ON_ERROR="stop") as service:
        watch = Watch("handler fails: stop", service)
        failed = 'eventcore_projections_state{projection="balances",state="failed"}'
        unhealthy = 'eventcore_health_status{check="projection:balances",status="unhealthy"}'
        _wait_for_projection(service)
        watch.before(failed, unhealthy, GIVEN_UP)
        watch.begin()
        with handler_broken(stage.server, service.database):
            service.deposit(POISONED)
            watch.health("healthz", 200, 15, check="projection:balances", reason="it has failed in this process")
            record = watch.logged("projection 'balances' has failed and does not run any more", level="ERROR", count=1)
            watch.expect("the record has the traceback of the handler", record and "balances.py" in record.get("exception", ""))
            watch.moved(failed, lambda value: value == 1)
            watch.moved(unhealthy, lambda value: value == 1)
            _failed_batch(watch)
        return _finish(watch)


def handler_dead_letters(stage: Stage) -> Row:
    """A projection's handler fails, and its policy is to keep the event as a dead letter."""
    with stage.service() as service:
        watch = Watch("handler fails: dead_letter", service)
        letters = 'eventcore_projections_dead_letters_total{projection="balances"}'
        letters_waiting = 'eventcore_projections_dead_letters_waiting{projection="balances"}'
        degraded = 'eventcore_health_status{check="dead_letters",status="degraded"}'
        _wait_for_projection(service)
        watch.before(letters, letters_waiting, degraded, GIVEN_UP)
        watch.begin()
        with handler_broken(stage.server, service.database):
            service.deposit(POISONED)
            watch.health("healthz", 200, 15, check="dead_letters", reason="1 of balances")
            watch.logged("it is kept as a dead letter", level="WARNING", count=1, traced=True)
            watch.rose(letters)
            watch.moved(letters_waiting, lambda value: value == 1)
            watch.moved(degraded, lambda value: value == 1)
            _failed_batch(watch)
        applied = 'eventcore_projections_events_total{projection="balances",outcome="applied"}'
        watch.before(applied)
        watch.expect("the command after it is executed", service.deposit() == 201)
        watch.rose(applied)
        return _finish(watch)


def _wait_for_projection(service: Service) -> None:
    service.deposit()
    applied = 'eventcore_projections_events_total{projection="balances",outcome="applied"}'
    wait_until(lambda: service.metric(applied), timeout=20)


def _failed_batch(watch: Watch) -> None:
    """What a failure of a handler shows, whatever its policy."""
    watch.health("readyz", 200, 1)
    watch.logged("projection 'balances' tries an event again", level="WARNING", count=1, traced=True)
    watch.rose(GIVEN_UP)
    failed = watch.traced("the batch that failed", lambda span: span.name == "project balances" and span.status == "error")
    if failed is not None:
        watch.expect("the span has the exception", any(event.name == "exception" for event in failed.events))
        watch.expect("the span is linked to the command that wrote the event", failed.links)
    watch.expect("commands go on", watch.service.deposit() == 201)


def collector_away(stage: Stage) -> Row:
    """The collector is away under load, and comes back."""
    with stage.service() as service, load(service):
        watch = Watch("collector away", service)
        failing, running = (f'eventcore_exporters_state{{exporter="otel",state="{state}"}}' for state in ("failing", "running"))
        pending = 'eventcore_exporters_spans_pending{exporter="otel"}'
        exported, dropped = (
            f'eventcore_exporters_spans_total{{exporter="otel",outcome="{outcome}"}}' for outcome in ("exported", "dropped")
        )
        wait_until(lambda: service.metric(exported), timeout=20)
        watch.before(failing, pending)
        watch.begin()
        with away(stage.collector):
            watch.health("healthz", 200, 20, check="exporter:otel", reason="failing")
            watch.health("readyz", 200, 1)
            watch.logged("spans were not exported", level="WARNING", count=1)
            watch.moved(failing, lambda value: value == 1)
            watch.rose(pending)
            begun = time.time_ns()
            watch.expect("commands go on", service.deposit("meanwhile") == 201)
            ended = time.time_ns()
            watch.before(running)
        watch.moved(running, lambda value: value == 1, within=30)
        watch.health("healthz", 200, 10, reason="healthy")
        watch.logged("spans are exported again", level="INFO", count=1)

        def meanwhile(span: ReceivedSpan) -> bool:
            return span.name == "execute Deposit" and begun <= span.start_time_ns < ended

        watch.traced("a command that was executed while the collector was away", meanwhile, within=30)
        watch.expect("no span is lost", not service.metric(dropped))
        return _finish(watch)


def command_types(stage: Stage) -> Row:
    """An application makes a class of commands for each customer: 2500 values of a label."""
    with stage.service() as service:
        watch = Watch("thousands of command types", service)
        overflow = 'eventcore_series_overflow_total{instrument="eventcore.commands.total"}'
        further = 'eventcore_commands_total{command_type="_overflow_"}'
        watch.before(overflow, further, COMMITTED)
        watch.begin()
        watch.expect("2500 types are executed", service.post("incidents/types?count=2500", timeout=60) == 200)
        watch.health("readyz", 200, 2)
        watch.logged("'eventcore.commands.total' takes no further series", level="WARNING", count=1)
        # There are 2000 series; all that is beyond them, and nothing else, is in the last one.
        watch.moved(overflow, lambda value: value == 500)
        watch.moved(further, lambda value: value == 500)
        watch.moved(COMMITTED, lambda value: value == 2500)
        watch.traced("a command beyond the cap, by its own name", lambda span: span.name == "execute DepositOfCustomer2499", 30)
        return _finish(watch)


def loop_blocked(stage: Stage) -> Row:
    """Code of a request blocks the event loop for three seconds."""
    with stage.service() as service, ThreadPoolExecutor(1) as others:
        watch = Watch("loop blocked", service)
        degraded = 'eventcore_health_status{check="event_loop",status="degraded"}'
        lag = "eventcore_event_loop_lag_seconds"
        service.deposit()
        watch.before(degraded, f"{lag}_sum")
        watch.begin()
        request = others.submit(service.post, "incidents/block?seconds=3")
        watch.health("readyz", 0, 3)
        watch.expect("the request is answered", request.result() == 200)
        watch.health("healthz", 200, 5, check="event_loop", reason="a callback blocked the event loop for")
        watch.health("livez", 200, 1)
        watch.health("readyz", 200, 2)
        record = watch.logged("the event loop has been blocked for", level="WARNING", count=1)
        if record is not None:
            watch.expect("the record shows the code that blocks", "block_the_event_loop" in record["message"])
        watch.rose(f"{lag}_sum")
        # One timer was late by more than 2.5 s.
        watch.moved((f"{lag}_count", f'{lag}_bucket{{le="2.5"}}'), lambda value: value == 1)
        watch.moved(degraded, lambda value: value == 1)
        watch.traced("the check that degraded", lambda span: span.name == "health check")
        return _finish(watch)


def slow_command(stage: Stage) -> Row:
    """The ``handle`` of a command computes for more than a second."""
    with stage.service() as service:
        watch = Watch("slow command", service)
        duration = 'eventcore_command_duration_seconds_sum{command_type="Reckon"}'
        decide = 'eventcore_commands_phase_duration_seconds_sum{phase="decide"}'
        watch.before(duration, decide)
        watch.begin()
        watch.expect("the command is executed", service.post("incidents/reckon?seconds=1.2") == 200)
        watch.health("healthz", 200, 5, check="event_loop", reason="a callback blocked the event loop for")
        record = watch.logged("slow command Reckon", level="WARNING", count=1, traced=True)
        watch.moved(duration, lambda value: value > 1.2)
        watch.moved(decide, lambda value: value > 1.2)
        span = watch.traced("the command", lambda span: span.name == "execute Reckon")
        if span is not None and record is not None:
            watch.expect("the record has the trace of the command", record["trace_id"] == span.trace_id)
            phase = float(str(span.attributes.get("eventcore.phase.decide", 0)))
            watch.expect(f"the span says that deciding took the time, not {phase} s", phase > 1.2)
        return _finish(watch)


def wrong_settings(stage: Stage) -> Row:
    """A new release starts with wrong settings of exporters, then with a wrong password, then with right ones."""
    with stage.service(ready=False) as service:
        watch = Watch("wrong settings at start", service)
        watch.before("eventcore_info")
        watch.begin()
        wrong = {"EVENTCORE_EXPORTERS": "otel,promteus", "EVENTCORE_EXPORTERS__OTEL__ENDPIONT": "http://localhost:4317"}
        _ends_at_start(watch, wrong, "EVENTCORE_EXPORTERS__OTEL__ENDPIONT", "promteus")
        watch.health("livez", 0, 1)
        begun = time.monotonic()
        url = service.server.url(service.database).replace(PASSWORD, WRONG_PASSWORD)
        _ends_at_start(watch, {"BANK_DATABASE": url}, "refuses the password")
        took = time.monotonic() - begun
        watch.expect(f"it does not wait for a wrong password to become right, as it did for {took:.1f} s", took < 20)
        service.start()
        watch.health("readyz", 200, 30)
        watch.expect("a command is executed", service.deposit() == 201)
        watch.moved("eventcore_info", lambda value: value == 1)
        watch.traced("the first command", lambda span: span.name == "execute Deposit")
        return _finish(watch)


def _ends_at_start(watch: Watch, wrong: dict[str, str], *expected: str) -> None:
    """Start the service with a wrong setting; the end of its traceback has to name what is expected."""
    old = len(watch.service.log())
    process = watch.service.start(**wrong)
    try:
        code = process.wait(30)
    except subprocess.TimeoutExpired:
        code = 0
    watch.expect("it ends with an error", code != 0)
    # uvicorn prints the traceback; its last part is the message.
    message = watch.service.log()[old:].rpartition("eventcore.errors.")[2].strip()
    watch.row.logged.append({"exit code": code, "message": message})
    for text in expected:
        watch.expect(f"the message names {text!r}", text in message)


def sigterm(stage: Stage) -> Row:
    """Two workers under load are asked to end."""
    with stage.service(workers=2) as service:
        watch = Watch("SIGTERM under load", service)
        with load(service, clients=4, pause=0.01) as answers:
            wait_until(lambda: answers[201] > 50, timeout=30)
            watch.before(COMMITTED)
            watch.begin()
            assert service.process is not None
            terminate(service.process.pid)
            watch.health("readyz", 503, 1.5, reason="draining")
            watch.rose(COMMITTED, within=1.0)
            code = service.process.wait(30)
        watch.expect(f"it ends in order, not with code {code}", code == 0)
        watch.row.health.append(f"{time.monotonic() - watch.begun:5.1f} s  ended with code {code}")
        watch.logged("drained; everything ended: True", level="INFO", count=2)
        stored = int(
            service.server.sql("SELECT count(*) FROM eventcore.events WHERE stream_id = 'account-load'", service.database)
        )
        watch.row.metrics.append(f"answers {dict(sorted(answers.items()))}, {stored} deposits stored")
        watch.expect("every acknowledged deposit is stored", answers[201] <= stored <= answers[201] + answers[0])
        watch.expect("some requests were refused with 503 before the server stopped", answers[503])
        # Exporters deliver what they have before the process ends.
        spans = [
            span for span in service.spans() if span.name == "execute Deposit" and span.start_time_ns >= service.started_ns
        ]
        committed = {span.trace_id for span in spans if span.status != "error"}
        watch.expect(f"each of {stored} deposits has its trace, not {len(committed)}", len(committed) == stored)
        watch.traced("the last command", lambda span: span in spans and span.status != "error")
        counted = _committed_at_the_collector(service)
        watch.row.metrics.append(f"eventcore.commands.total committed at the collector, of both workers: {counted:g}")
        watch.expect(f"the last metrics say {stored} commands, not {counted:g}", counted == stored)
        return _finish(watch)


def _committed_at_the_collector(service: Service) -> float:
    last: dict[str, float] = {}
    for point in service.collector.points("eventcore.commands.total"):
        if point.attributes.get("outcome") == "committed" and point.time_ns >= service.started_ns:
            last[str(point.resource.get("service.instance.id"))] = float(point.value or 0)
    return sum(last.values())


def _seconds(span: ReceivedSpan) -> float:
    return (span.end_time_ns - span.start_time_ns) / 1e9


INCIDENTS: Final[dict[str, Callable[[Stage], Row]]] = {
    "server": server_killed,
    "lock": lock_and_pool,
    "stop": handler_stops,
    "dead_letter": handler_dead_letters,
    "collector": collector_away,
    "types": command_types,
    "blocked": loop_blocked,
    "slow": slow_command,
    "settings": wrong_settings,
    "sigterm": sigterm,
}
