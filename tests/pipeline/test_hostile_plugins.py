"""Whatever a plugin raises or returns, and whatever a value does when it is converted, costs no more than itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from eventcore.exporting import CounterData, GiveUp, Rejected, RetryLater, Signal, SpanData, TraceContext, hookimpl
from eventcore.recording.spans import Span
from tests.pipeline.conftest import FAST, Bench, Collecting
from tests.pipeline.test_cycles import Scripted, adds_up, raising


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise TypeError("no text for you")

    __repr__ = __str__


class ExitsWhenRead(Exception):
    def __str__(self) -> str:
        raise SystemExit(9)

    __repr__ = __str__


class BadCause(Exception):
    @property
    def __cause__(self) -> Any:  # type: ignore[override]  # that it raises is the point
        raise RuntimeError("no cause either")


class BadRetry(RetryLater):
    def __init__(self) -> None:
        Exception.__init__(self)

    @property
    def after(self) -> Any:  # type: ignore[override]  # as above
        raise SystemExit(1)

    def __str__(self) -> str:
        raise KeyboardInterrupt


class BadGiveUp(GiveUp):
    def __init__(self) -> None:
        Exception.__init__(self)

    def __str__(self) -> str:
        return 7  # type: ignore[return-value]  # noqa: PLE0307  # that it is no text is the point


class Shameless:
    """Every question about it raises."""

    @property  # type: ignore[misc]  # that it raises is the point
    def __class__(self) -> Any:
        raise KeyboardInterrupt

    def __repr__(self) -> str:
        raise SystemExit(1)

    def __bool__(self) -> bool:
        raise ValueError("neither")

    def __eq__(self, other: object) -> bool:
        raise ValueError("nothing is like it")

    __hash__ = object.__hash__


# Made in the test: pytest itself cannot show such values.
ERRORS: dict[str, Callable[[], BaseException]] = {
    "its text raises": Unspeakable,
    "its text exits": ExitsWhenRead,
    "its cause raises": lambda: BadCause("x"),
    "a retry without seconds": BadRetry,
    "a reason that is no text": BadGiveUp,
    "a lone surrogate": lambda: Exception("\ud800"),
    "a group that exits": lambda: BaseExceptionGroup("g", [SystemExit()]),
}


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("where", ["begin", "export_spans", "flush"])
def test_an_exception_that_cannot_be_shown_ends_no_pipeline(bench: Bench, kind: str, where: str) -> None:
    error = ERRORS[kind]()

    class Bad(Scripted):
        broken = True

        def fail(self, hook: str) -> None:
            if self.broken and hook == where:
                raise error

        @hookimpl
        def begin(self, signal: Signal, attempt: int) -> None:
            super().begin(signal, attempt)
            self.fail("begin")

        @hookimpl
        def export_spans(self, spans: Sequence[SpanData], timeout: float) -> None:
            super().export_spans(spans, timeout)
            self.fail("export_spans")

        @hookimpl
        def flush(self, signal: Signal, timeout: float) -> None:
            self.fail("flush")
            super().flush(signal, timeout)

    exporter = Bad()
    pipeline = bench.add(exporter)
    bench.end_spans(2)
    report = bench.manager.flush(0.2)["exporter"]
    assert not report.delivered
    assert adds_up(report)
    assert str(report)
    assert not pipeline.finished.is_set()
    exporter.broken = False
    bench.end_spans(3)
    report = bench.manager.flush(5.0)["exporter"]
    assert report.spans_exported >= 3
    assert adds_up(bench.manager.shutdown(5.0)["exporter"])


@pytest.mark.parametrize("kind", ERRORS)
def test_an_exception_that_cannot_be_shown_in_start_and_shutdown_is_one_like_any_other(bench: Bench, kind: str) -> None:
    error = ERRORS[kind]()

    class Bad(Collecting):
        starts = 0

        @hookimpl
        def start(self) -> None:  # type: ignore[override]  # a hook takes the arguments it wants
            self.starts += 1
            if self.starts == 1:
                raise error

        @hookimpl
        def shutdown(self, timeout: float) -> None:
            raise error

    bench.add(Bad())
    bench.end_spans(1)
    assert bench.manager.shutdown(5.0)["exporter"].spans_exported == 1


async def _coroutine() -> None: ...


ANSWERS: list[Callable[[], object]] = [
    Shameless,
    _coroutine,
    lambda: Rejected,
    lambda: iter(()),
    lambda: "x" * 20_000_000,
    lambda: 0,
]


@pytest.mark.parametrize("answer", ANSWERS, ids=["shameless", "coroutine", "class", "iterator", "20 MB", "0"])
@pytest.mark.filterwarnings("error")
def test_whatever_a_hook_returns_is_checked(bench: Bench, answer: Callable[[], object]) -> None:
    exporter = Scripted(spans=[answer] * 1000)
    bench.add(exporter, settings=msgspec.structs.replace(FAST, max_backoff=3600.0, backoff=3600.0, span_interval=0.02))
    bench.end_spans(2)
    report = bench.manager.flush(0.05)["exporter"]
    assert not report.delivered
    assert len(str(report)) < 2000
    exporter.script["spans"].clear()
    assert bench.manager.flush(5.0)["exporter"].spans_exported == 2


def test_a_handler_of_the_application_that_raises_ends_no_pipeline(bench: Bench) -> None:
    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise RuntimeError("disk full")

    handler = Broken()
    logging.getLogger("eventcore.exporters.logging").addHandler(handler)
    try:
        bench.add(Scripted(spans=[raising(ConnectionError("down"))]), "logging")
        bench.end_spans(1)
        assert bench.manager.flush(5.0)["logging"].spans_exported == 1
    finally:
        logging.getLogger("eventcore.exporters.logging").removeHandler(handler)


class Converting(Scripted):
    """Refuses spans and counters whose name says so, as an encoder does, and drops what it holds then."""

    @hookimpl
    def export_spans(self, spans: Sequence[SpanData], timeout: float) -> None:
        super().export_spans(spans, timeout)
        for span in spans:
            if "bad" in span.name:
                raise TypeError(f"cannot encode {span.name}")

    @hookimpl
    def export_counters(self, counters: Sequence[CounterData], timeout: float) -> None:
        super().export_counters(counters, timeout)
        if any("bad" in counter.name for counter in counters):
            raise ValueError("cannot encode a counter")


class ConvertingAtOnce:
    """As ``Converting``, without ``begin`` and ``flush``."""

    interval = 3600.0

    def __init__(self) -> None:
        self.arrived: dict[str, list[str]] = {"spans": []}

    @hookimpl
    def export_spans(self, spans: Sequence[SpanData]) -> None:
        if any("bad" in span.name for span in spans):
            raise TypeError("cannot encode a span")
        self.arrived["spans"] += [span.name for span in spans]


@pytest.mark.parametrize("make", [Converting, ConvertingAtOnce])
def test_spans_that_cannot_be_converted_take_no_other_span_with_them(bench: Bench, make: type[Any]) -> None:
    exporter: Any = make()
    pipeline = bench.add(exporter, settings=msgspec.structs.replace(FAST, span_interval=3600.0))
    for number in range(300):
        bench.tracer.span(f"bad {number}" if number % 50 == 7 else f"good {number}").end()
    report = bench.manager.flush(5.0)["exporter"]
    assert not report.delivered
    assert "6 spans cannot be converted: TypeError: cannot encode" in report.reason
    assert (report.spans_exported, report.spans_dropped["rejected"], report.spans_pending) == (294, 6, 0)
    assert sorted(exporter.arrived["spans"]) == sorted(f"good {number}" for number in range(300) if number % 50 != 7)
    assert pipeline.state == "running"


def test_a_span_that_cannot_even_be_read_takes_no_other_with_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Span.data

    def data(span: Span) -> SpanData:
        if span.name == "span 3":
            raise Unspeakable
        return read(span)

    monkeypatch.setattr(Span, "data", data)
    bench.add(Converting())
    bench.end_spans(10)
    report = bench.manager.flush(5.0)["exporter"]
    assert (report.spans_exported, report.spans_dropped["rejected"]) == (9, 1)


def test_a_bad_span_alone_is_refused_in_the_second_attempt(bench: Bench) -> None:
    bench.add(Converting())
    bench.tracer.span("bad").end()
    report = bench.manager.flush(5.0)["exporter"]
    assert (report.spans_dropped["rejected"], report.spans_pending) == (1, 0)


def test_where_no_span_can_be_exported_the_hook_is_to_blame_and_nothing_is_lost(bench: Bench) -> None:
    class NotReady(Scripted):
        ready = False

        @hookimpl
        def export_spans(self, spans: Sequence[SpanData], timeout: float) -> None:
            if not self.ready:
                raise RuntimeError("no connection")
            super().export_spans(spans, timeout)

    exporter = NotReady()
    bench.add(exporter)
    bench.end_spans(30)
    report = bench.manager.flush(0.3)["exporter"]
    assert (report.delivered, report.spans_pending) == (False, 30)
    exporter.ready = True
    assert bench.manager.flush(5.0)["exporter"].spans_exported == 30


def test_an_instrument_that_cannot_be_converted_takes_no_other_with_it(bench: Bench) -> None:
    exporter = Converting()
    pipeline = bench.add(exporter)
    for name in ("a.good", "b.bad", "c.good"):
        bench.registry.counter(name, unit="", description="", labels=()).add(1)
    report = bench.manager.flush(5.0)["exporter"]
    assert not report.delivered
    assert (report.points_exported, report.points_rejected) == (2, 1)
    assert exporter.arrived["metrics"] == ["a.good", "c.good"]
    assert list(pipeline.hidden) == ["b.bad"]
    assert pipeline.hidden_instruments.counts() == {"collision": 0, "invalid": 1, "filtered": 0}


class Ambient:
    """A tracing system of which one method misbehaves."""

    def __init__(self, **behaviour: Callable[..., object]) -> None:
        self.behaviour = behaviour
        self.calls: list[str] = []

    def _do(self, what: str, *arguments: object) -> Any:
        self.calls.append(what)
        return self.behaviour.get(what, returning(None))(*arguments)

    def current(self) -> TraceContext | None:
        found: TraceContext | None = self._do("current")
        return found

    def attach(self, context: TraceContext, own_io: bool) -> object:
        return self._do("attach", context, own_io)

    def detach(self, token: object) -> None:
        self._do("detach", token)


class WithAmbient(Collecting):
    def __init__(self, answer: Callable[[], object]) -> None:
        super().__init__()
        self.answer = answer

    @hookimpl
    def ambient_context(self) -> Any:
        return self.answer()


PARENT = TraceContext(trace_id=5, span_id=6, trace_flags=1)


@pytest.mark.parametrize(
    "answer", [lambda: Ambient(current=lambda: PARENT), lambda: lambda: PARENT], ids=["object", "callable"]
)
def test_the_current_span_of_another_system_is_the_parent(bench: Bench, answer: Callable[[], object]) -> None:
    bench.add(WithAmbient(answer))
    assert bench.tracer.span("child").parent_span_id == 6


def returning(value: object) -> Callable[..., object]:
    return lambda *_: value


def failing(make: Callable[[], BaseException]) -> Callable[..., object]:
    def fail(*_: object) -> object:
        raise make()

    return fail


MISBEHAVIOUR: dict[str, Callable[..., object]] = {
    "an int": returning(7),
    "a text": returning("00-1-2-01"),
    "a coroutine": lambda *_: _coroutine(),
    "shameless": lambda *_: Shameless(),
    **{kind: failing(make) for kind, make in ERRORS.items()},
    "exits": failing(SystemExit),
    "interrupts": failing(KeyboardInterrupt),
    "is cancelled": failing(asyncio.CancelledError),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", MISBEHAVIOUR)
def test_an_ambient_context_that_misbehaves_is_asked_no_more_and_shown(
    bench: Bench, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    ambient = Ambient(current=MISBEHAVIOUR[kind])
    pipeline = bench.add(WithAmbient(lambda: ambient), f"ambient_{kind}")
    for _ in range(3):
        bench.tracer.span("x").end()
    assert ambient.calls == ["current"]
    assert "ambient context: current()" in pipeline.problem
    assert pipeline.state == "running"
    assert caplog.text.count("its ambient context is ignored") == 1
    assert bench.manager.flush(5.0)


AMBIENTS: dict[str, Callable[[], object]] = {
    "an int": lambda: 7,
    "shameless": Shameless,
    "a coroutine": _coroutine,
    "a generator": lambda: iter([1]),
    "attach alone": type("NoDetach", (), {"attach": lambda *_: None}),
    "an async current": type("AsyncCurrent", (), {"current": _coroutine}),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", AMBIENTS)
def test_what_ambient_context_returns_is_checked(bench: Bench, kind: str) -> None:
    pipeline = bench.add(WithAmbient(AMBIENTS[kind]))
    bench.end_spans(1)
    assert "ambient_context returned" in pipeline.problem or "cannot be examined" in pipeline.problem
    assert bench.manager.flush(5.0)


def test_a_span_is_attached_to_the_other_system_and_detached_again(bench: Bench) -> None:
    seen: list[object] = []
    ambient = Ambient(attach=lambda context, own_io: (context, own_io), detach=seen.append)
    guard = bench.add(WithAmbient(lambda: ambient)).status.ambient
    assert guard is not None
    assert guard.attaches
    token = guard.attach(PARENT, True)
    guard.detach(token)
    assert seen == [(PARENT, True)]


@pytest.mark.parametrize("where", ["attach", "detach"])
def test_attach_and_detach_never_raise_and_are_not_called_again(bench: Bench, where: str) -> None:
    behaviour: dict[str, Callable[..., object]] = {"attach": returning("token"), where: failing(KeyboardInterrupt)}
    ambient = Ambient(**behaviour)
    pipeline = bench.add(WithAmbient(lambda: ambient))
    guard = pipeline.status.ambient
    assert guard is not None
    for _ in range(3):
        guard.detach(guard.attach(PARENT, False))
    assert ambient.calls == (["attach"] if where == "attach" else ["attach", "detach"])
    assert f"{where}()" in pipeline.problem


@pytest.mark.parametrize("kind", MISBEHAVIOUR)
def test_a_system_that_cannot_say_whether_it_is_in_use_counts_as_in_use(bench: Bench, kind: str) -> None:
    class Asked(Ambient):
        def in_use(self) -> Any:
            return self._do("in_use")

    ambient = Asked(in_use=MISBEHAVIOUR[kind], attach=returning("token"))
    pipeline = bench.add(WithAmbient(lambda: ambient), f"in_use_{kind}")
    guard = pipeline.status.ambient
    assert guard is not None
    for _ in range(3):
        assert guard.in_use()
        guard.detach(guard.attach(PARENT, False))
    assert ambient.calls == ["in_use", *["attach", "detach"] * 3]
    assert "ambient context: in_use()" in pipeline.problem


def test_the_older_hook_trace_context_still_connects(bench: Bench) -> None:
    class Older(Collecting):
        @hookimpl
        def trace_context(self) -> Callable[[], TraceContext | None]:
            return lambda: PARENT

    bench.add(Older())
    assert bench.tracer.span("child").trace_id == 5


def test_an_instrument_that_an_exporter_hides_is_shown_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    exporter = Collecting()
    pipeline = bench.add(exporter, "hiding")
    assert exporter.context is not None
    for _ in range(3):
        exporter.context.report_hidden("orders.total", "its name is in use", "collision")
    assert pipeline.hidden == {"orders.total": "its name is in use"}
    assert pipeline.hidden_instruments.counts() == {"collision": 1, "invalid": 0, "filtered": 0}
    assert caplog.text.count("is not shown") == 1


@pytest.mark.parametrize("wanted", [True, False])
def test_a_pull_exporter_gets_one_last_cycle_before_its_shutdown_if_it_asks_for_it(bench: Bench, wanted: bool) -> None:
    class Pulled(Collecting):
        interval = None
        signals = ("metrics",)
        final_cycle = wanted

    exporter = Pulled()
    bench.add(exporter)
    bench.registry.counter("orders", unit="", description="", labels=()).add(3)
    assert bench.manager.shutdown(5.0)
    assert [point.value for data in exporter.counters for point in data.points] == ([3] if wanted else [])
