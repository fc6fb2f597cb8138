from __future__ import annotations

import functools
import inspect
import math
import types
from collections.abc import Callable
from typing import Any

import pytest

from eventcore.errors import InvalidExporter
from eventcore.exporting import Exporter, Rejected, Signal, hookimpl
from eventcore.exporting.delivery.handle import PluginOrigin
from eventcore.exporting.registration import check_exporter

ORIGIN = PluginOrigin("statsd", "eventcore-statsd", "1.2.3")


class Counting(Exporter):
    @hookimpl
    def export_counters(self, counters: Any, timeout: float) -> Any:
        return Rejected(len(counters), f"within {timeout}")


def refusal(exporter: object, origin: PluginOrigin | None = ORIGIN) -> str:
    with pytest.raises(InvalidExporter) as caught:
        check_exporter(exporter, origin)
    return str(caught.value)


def with_hook(function: Callable[..., Any], name: str = "flush") -> object:
    """An exporter that is right but for one method."""
    return type("Statsd", (Counting,), {name: function})()


def test_an_exporter_says_what_it_can_do() -> None:
    class Half:
        interval = 2

        @hookimpl
        def export_spans(self, spans: Any) -> None: ...

        @hookimpl
        async def export_gauges(self, timeout: float) -> None: ...

        @hookimpl
        def shutdown(self) -> None: ...

    handle = check_exporter(Half())
    assert handle.implemented == {"export_spans", "export_gauges", "shutdown"}
    assert handle.kinds == ("gauges", "spans")
    assert handle.interval == 2.0
    assert [hook for hook in handle.implemented if hook in handle.async_hooks] == ["export_gauges"]


def test_a_hook_gets_the_arguments_that_it_takes_and_its_answer_comes_back() -> None:
    handle = check_exporter(Counting())
    assert handle.call("export_counters", counters=(1, 2), timeout=3.0) == Rejected(2, "within 3.0")


async def test_an_async_hook_returns_its_coroutine() -> None:
    class Sending:
        @hookimpl
        async def export_spans(self, spans: Any) -> Rejected:
            return Rejected(len(spans), "no")

    coroutine = check_exporter(Sending()).call("export_spans", spans=(1,), timeout=1.0)
    assert inspect.iscoroutine(coroutine)
    assert await coroutine == Rejected(1, "no")


def test_a_hook_that_is_not_implemented_answers_nothing() -> None:
    assert check_exporter(Counting()).call("flush", signal="metrics", timeout=1.0) is None


def test_an_exception_of_a_hook_comes_through_as_it_is() -> None:
    problem = OSError("gone")

    @hookimpl
    def flush(self: object) -> None:
        raise problem

    with pytest.raises(OSError, match="gone") as caught:
        check_exporter(with_hook(flush)).call("flush", signal="metrics", timeout=1.0)
    assert caught.value is problem


def test_two_exporters_do_not_see_each_other() -> None:
    class Failing(Counting):
        @hookimpl
        def export_counters(self, counters: Any, timeout: float) -> Any:
            raise RuntimeError

    check_exporter(Failing())
    assert check_exporter(Counting()).call("export_counters", counters=(), timeout=1.0) == Rejected(0, "within 1.0")


@pytest.mark.parametrize(
    ("not_an_exporter", "expected"),
    [
        (Counting, "it is the class Counting; expected an instance of it: Counting(...)"),
        (types, "it is the module 'types'"),
        (refusal, "it is the function 'refusal'"),
        (None, "it is None"),
        ("otel", "it has no hook"),
        (object(), "expected at least one of export_counters, export_gauges, export_histograms, export_spans"),
    ],
)
def test_what_is_no_exporter_is_refused(not_an_exporter: object, expected: str) -> None:
    assert expected in refusal(not_an_exporter)


def test_the_message_names_plugin_distribution_version_and_class() -> None:
    message = refusal(Exporter())
    assert "eventcore.exporting.hookspecs.Exporter (plugin 'statsd' of eventcore-statsd 1.2.3)" in message
    assert "plugin" not in refusal(Exporter(), None)


def test_the_stubs_of_the_base_class_are_no_hooks() -> None:
    assert check_exporter(Counting()).implemented == {"export_counters"}


def test_every_problem_is_reported_at_once() -> None:
    class Wrong:
        interval = -1

        @hookimpl
        def export_counter(self, counters: Any) -> None: ...

        @hookimpl
        def export_gauges(self, gauge: Any) -> None: ...

        def flush(self) -> None: ...

    message = refusal(Wrong())
    assert "Wrong.export_counter: there is no hook 'export_counter'; did you mean 'export_counters'?" in message
    assert "Wrong.export_gauges: there is no argument 'gauge'; did you mean 'gauges'?" in message
    assert "Wrong.flush: it has the name of a hook, but not the marker" in message
    assert "Wrong.interval is -1; expected seconds" in message


def generator(self: object, timeout: float) -> Any:
    yield timeout


def wrapper(self: object) -> Any:
    return (yield)


def old_wrapper(self: object) -> Any:
    yield


async def async_generator(self: object) -> Any:
    yield


async def keyword_only(self: object, *, timeout: float) -> None: ...


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (hookimpl(generator), "it is a generator"),
        (hookimpl(async_generator), "it is a generator"),
        (hookimpl(wrapper=True)(wrapper), "it is a wrapper"),
        (hookimpl(hookwrapper=True)(old_wrapper), "it is a wrapper"),
        (hookimpl(lambda self, *rest: None), "'*rest' would never be given anything"),
        (hookimpl(lambda self, **rest: None), "'**rest' would never be given anything"),
        (hookimpl(lambda self, timeout=10: None), "'timeout' has a default"),
        (hookimpl(keyword_only), "'timeout' is keyword-only"),
        (hookimpl(lambda self, deadline: None), "there is no argument 'deadline'"),
        (hookimpl(lambda: None), "it takes no 'self'"),
        (hookimpl(lambda timeout: None), "'self' is missing"),
        (staticmethod(hookimpl(lambda self, timeout: None)), "there is no argument 'self'"),
        (lambda self: None, "not the marker"),
        (property(lambda self: 1 / 0), "but is a property"),
        (functools.partial(print), "but is a partial"),
        (7, "but is a int"),
    ],
)
def test_a_hook_that_could_never_work_is_refused(function: Any, expected: str) -> None:
    message = refusal(with_hook(function))
    assert expected in message
    assert "plugin 'statsd' of eventcore-statsd 1.2.3" in message


def test_static_and_class_methods_work_as_hooks() -> None:
    class Static:
        @staticmethod
        @hookimpl
        def export_counters(counters: Any) -> Any:
            return Rejected(len(counters), "static")

        @classmethod
        @hookimpl
        def flush(cls, timeout: float) -> Any:
            return Rejected(1, cls.__name__)

    handle = check_exporter(Static())
    assert handle.call("export_counters", counters=(1, 2, 3), timeout=1.0) == Rejected(3, "static")
    assert handle.call("flush", signal="metrics", timeout=1.0) == Rejected(1, "Static")


def test_a_method_of_another_name_can_implement_a_hook_but_not_twice() -> None:
    class Renamed(Counting):
        @hookimpl(specname="flush")
        def deliver(self) -> Rejected:
            return Rejected(1, "renamed")

    assert check_exporter(Renamed()).call("flush", signal="metrics", timeout=1.0) == Rejected(1, "renamed")

    class Twice(Renamed):
        @hookimpl
        def flush(self, signal: Signal, timeout: float) -> None: ...

    assert "implements the hook 'flush' too" in refusal(Twice())


def test_a_hook_of_a_newer_core_is_ignored_when_it_is_optional() -> None:
    class Newer(Counting):
        @hookimpl(optionalhook=True)
        def export_logs(self, logs: Any) -> None: ...

    assert check_exporter(Newer()).implemented == {"export_counters"}


def test_an_override_without_the_marker_is_found() -> None:
    class Forgetful(Counting):
        def export_counters(self, counters: Any, timeout: float) -> Any: ...

    assert "Forgetful.export_counters: it has the name of a hook, but not the marker" in refusal(Forgetful())


def test_no_property_is_run_by_the_checks() -> None:
    class Careful(Counting):
        @property
        def connection(self) -> Any:
            pytest.fail("the checks ran a property")

    assert check_exporter(Careful()).kinds == ("counters",)


@pytest.mark.parametrize("interval", [0, -1.0, math.nan, math.inf, "10", True])
def test_an_interval_that_is_no_number_of_seconds_is_refused(interval: Any) -> None:
    exporter = Counting()
    exporter.interval = interval
    assert "Counting.interval is" in refusal(exporter)


def test_a_pull_exporter_has_no_interval_and_others_have_one_of_ten_seconds() -> None:
    class Bare:
        @hookimpl
        def export_counters(self) -> None: ...

    pulled = Counting()
    pulled.interval = None
    assert check_exporter(pulled).interval is None
    assert check_exporter(Bare()).interval == 10.0


def test_an_interval_that_raises_is_a_problem_of_the_exporter() -> None:
    class Raising(Counting):
        interval = property(lambda self: 1 / 0)

    assert "ZeroDivisionError" in refusal(Raising())


@pytest.mark.parametrize(
    ("attribute", "value", "expected"),
    [
        ("signals", "metrics", "Counting.signals is 'metrics'; expected a collection of 'metrics' and 'spans'"),
        ("signals", ("metrics", "logs"), "Counting.signals is ('metrics', 'logs'); expected"),
        ("signals", 3, "Counting.signals is 3; expected"),
        ("temporality", "sometimes", "Counting.temporality is 'sometimes'; expected one of 'cumulative', 'delta', 'lowmemory'"),
        ("temporality", [], "Counting.temporality is []; expected"),
        ("pipeline_defaults", {"span_queue": 0}, "Counting.pipeline_defaults: Expected `int` >= 1 - at `$.span_queue`"),
        ("pipeline_defaults", {"span_queues": 5}, "Counting.pipeline_defaults: Object contains unknown field `span_queues`"),
        ("pipeline_defaults", ["span_queue"], "Counting.pipeline_defaults is ['span_queue']; expected a mapping"),
    ],
)
def test_an_attribute_with_a_wrong_value_is_refused(attribute: str, value: Any, expected: str) -> None:
    exporter: Any = Counting()
    setattr(exporter, attribute, value)
    assert expected in refusal(exporter)
