"""``configure`` gives a service without logging readable lines, without secrets."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import msgspec
import pytest

from eventcore import Telemetry
from eventcore.exporting import Secret
from eventcore.logs import MaskFilter, configure, mask_secrets
from eventcore.logs.masking import Masker

LOGGER = logging.getLogger("tests.configured")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    level = root.level
    yield io.StringIO()
    for handler in list(root.handlers):
        if getattr(handler, "eventcore_configured", False):
            root.removeHandler(handler)
    root.setLevel(level)


def only(stream: io.StringIO) -> dict[str, Any]:
    [line] = stream.getvalue().splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_json_has_the_message_the_trace_and_the_given_fields(stream: io.StringIO) -> None:
    configure("json", stream=stream)
    with Telemetry(config={"telemetry": {"traces_per_second": "all"}, "exporters": {"enabled": []}}).span("ship") as span:
        LOGGER.warning("shipped %d", 7, extra={"order": {"id": 17, "lines": [1, 2]}})
    line = only(stream)
    assert line.pop("timestamp").endswith("+00:00")
    assert line["message"] == "shipped 7"
    assert (line["level"], line["logger"], line["order"]) == ("WARNING", "tests.configured", {"id": 17, "lines": [1, 2]})
    assert line.get("trace_id", "") == (f"{span.context.trace_id:032x}" if span.context.trace_id else "")


def test_json_says_which_process_has_written_the_line(stream: io.StringIO) -> None:
    configure("json", stream=stream)
    LOGGER.warning("low stock")
    assert only(stream)["process.pid"] == os.getpid()


def test_json_keeps_an_exception_in_its_line(stream: io.StringIO) -> None:
    configure("json", stream=stream)
    try:
        raise ValueError("token=abc123 was refused")
    except ValueError:
        LOGGER.exception("failed")
    line = only(stream)
    assert "ValueError: token=*** was refused" in line["exception"]
    assert "abc123" not in stream.getvalue()


def test_a_second_call_replaces_the_first(stream: io.StringIO) -> None:
    configure("json", stream=stream)
    configure("json", stream=stream, level="ERROR")
    LOGGER.warning("not this one")
    LOGGER.error("once")
    assert only(stream)["message"] == "once"


@pytest.mark.parametrize("form", ["json", "console"])
def test_secrets_appear_in_no_line(stream: io.StringIO, form: Literal["json", "console"]) -> None:
    configure(form, stream=stream)
    LOGGER.info("token %s and postgresql://shop:s3cr3t@db/shop", Secret("s3cr3t"))
    LOGGER.info("call", extra={"headers": {"Authorization": "Bearer s3cr3t", "accept": "json"}, "db_password": "s3cr3t"})
    LOGGER.info("password=s3cr3t api_key: s3cr3t, user=ada; authorization: Bearer s3cr3t")
    LOGGER.info({"token": "s3cr3t"})
    LOGGER.info("nested", extra={"pairs": [("x", Secret("s3cr3t"))], "text": "secret='s3cr3t'"})
    assert "s3cr3t" not in stream.getvalue()
    assert "user=ada" in stream.getvalue()
    assert "db/shop" in stream.getvalue()


def test_a_pattern_of_ones_own_names_the_secret_fields(stream: io.StringIO) -> None:
    configure("json", stream=stream, mask="iban")
    LOGGER.info("paid", extra={"iban": "DE02", "token": "kept"})
    assert (only(stream)["iban"], only(stream)["token"]) == ("***", "kept")


def test_the_console_form_has_no_colours_where_there_is_no_terminal(stream: io.StringIO) -> None:
    configure("console", stream=stream)
    with Telemetry(config={"telemetry": {"traces_per_second": "all"}, "exporters": {"enabled": []}}).span(
        "ship", correlation_id="r-1"
    ):
        LOGGER.warning("low stock [item]", extra={"item": 17})
    [line] = stream.getvalue().splitlines()
    assert "\x1b" not in line
    assert "WARNING" in line
    assert line.endswith("tests.configured: low stock [item] item=17 correlation_id=r-1")


def test_nothing_that_is_logged_forges_a_line_or_steers_the_terminal(stream: io.StringIO) -> None:
    configure("console", stream=stream)
    LOGGER.warning("no\n12:00 ERROR forged\r\x1b[2J", extra={"agent": "a\nb\x9b1m\u202ec", "x\ny": 1, "name_": "ä → 🙂"})
    [line] = stream.getvalue().splitlines()
    assert r"no\n12:00 ERROR forged\r\x1b[2J agent=a\nb\x9b1m\u202ec x\ny=1 name_=ä → 🙂" in line
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        LOGGER.exception("failed")
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().splitlines()[-1] == r"ValueError: \x1b[2J"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"format": "xml"}, "format='xml'; expected one of json, console"),
        ({"level": "LOUD"}, "level='LOUD'; expected one of CRITICAL"),
        ({"mask": "("}, "is no regular expression"),
    ],
)
def test_what_is_not_allowed_is_refused(stream: io.StringIO, arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        configure(**arguments)


def test_a_record_whose_arguments_do_not_fit_is_left_to_logging(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = configure("json", stream=stream)
    handler.handle(logging.LogRecord("shop", logging.INFO, __file__, 1, "%d apples", ("no",), None))
    assert "--- Logging error ---" in capsys.readouterr().err


def test_a_missing_package_is_named_with_what_to_install() -> None:
    code = (
        "import sys; sys.modules['pythonjsonlogger'] = None\n"
        "from eventcore.errors import MissingDependency\n"
        "from eventcore.logs import configure\n"
        "try: configure()\n"
        "except MissingDependency as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "eventcore.logs.configure needs python-json-logger: pip install 'eventcore-core[logs]'\n"


def test_structlog_events_are_masked() -> None:
    event = {"event": "signed in", "password": "s3cr3t", "headers": {"Cookie": "s3cr3t"}, "key": Secret("s3cr3t")}
    assert "s3cr3t" not in repr(mask_secrets(None, "info", event))


def test_importing_logs_imports_neither_formatter() -> None:
    code = "import sys, eventcore.logs; print([n for n in ('rich', 'pythonjsonlogger', 'structlog') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "[]\n"


@dataclass
class Login:
    user: str
    password: str = "s3cr3t is my dog"
    hidden: str = field(default="s3cr3t", repr=False)


@dataclass
class Card:
    number: str = "s3cr3t"

    def __repr__(self) -> str:
        return "Card of ada"


class Named(NamedTuple):
    user: str
    token: str = "s3cr3t"


class Sent(msgspec.Struct):
    user: str
    password: str = "s3cr3t is my dog"


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize(
    "value",
    [
        Login("ada"),
        [Login("ada")],
        Card(),
        Named("ada"),
        {"deep": [Named("ada")]},
        Sent("ada"),
        ValueError("ada password='s3cr3t is my dog'"),
        {"user": "ada", "token": {"a": "s3cr3t is my dog"}},
    ],
)
def test_secrets_in_values_of_any_kind_are_masked(stream: io.StringIO, form: Literal["json", "console"], value: Any) -> None:
    configure(form, stream=stream)
    LOGGER.info("called", extra={"given": value})
    LOGGER.info("called with %s", value)
    LOGGER.info(value)
    assert "s3cr3t" not in stream.getvalue()
    assert stream.getvalue().count("ada") >= 3


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("{'password': 'hunter2 is my dog', 'user': 'ada'}", "{'password': '***', 'user': 'ada'}"),
        ('{"token": "a\\"b c", "user": "ada"}', '{"token": "***", "user": "ada"}'),
        (r'"{\"token\": \"a b\", \"user\": 1}"', r'"{\"token\": \"***\", \"user\": 1}"'),
        ("{'password': b'a b', 'n': 1}", "{'password': '***', 'n': 1}"),
        ("Login(password=Text('a b'), n=1)", "Login(password='***'), n=1)"),
        ("Cookie: a=b; c=d e\nHost: x", "Cookie: ***\nHost: x"),
        ('Authorization: Digest username="a", response="b"\nHost: x', "Authorization: ***\nHost: x"),
        ("{'Cookie': 'a=b; c=d', 'n': 1}", "{'Cookie': '***', 'n': 1}"),
        ("postgresql://shop:p@ss:w@rd@db/x and a@b", "postgresql://shop:***@db/x and a@b"),
        ("token: Bearer abc, n=1", "token: ***, n=1"),
        ("http://h:80/path me@b", "http://h:80/path me@b"),
    ],
)
def test_the_whole_of_a_secret_in_a_text_is_masked(text: str, masked: str) -> None:
    assert Masker().text(text) == masked


def test_values_that_contain_themselves_or_explode_are_masked_quickly() -> None:
    cyclic: dict[str, Any] = {"token": "s3cr3t", "n": 1}
    cyclic["self"] = cyclic
    assert Masker().field("x", cyclic) == {"token": "***", "n": 1, "self": "***"}
    exploding: list[Any] = ["a"]
    for _ in range(5):
        exploding = [exploding] * 20
    begun = time.process_time()
    Masker().field("x", exploding)
    assert len(Masker().field("x", list(range(100_000)))) == 1000
    assert len(Masker().field("x", dict.fromkeys(range(100_000)))) == 1000
    assert time.process_time() - begun < 1


def test_a_very_long_message_is_cut(stream: io.StringIO) -> None:
    configure("json", stream=stream)
    LOGGER.info("%s", "x " * 1_000_000 + "password=s3cr3t")
    assert len(stream.getvalue()) < 70_000
    assert "characters were cut off" in only(stream)["message"]


class NoBool:
    """As an array of numpy: the result of a comparison has no truth."""

    def __eq__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise ValueError("the truth value of an array is ambiguous")

    __hash__ = None  # type: ignore[assignment]


class Broken(dict[str, str]):
    def items(self) -> Any:
        raise RuntimeError("no items")


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("make", [NoBool, Broken])
def test_no_value_makes_a_log_call_raise(
    stream: io.StringIO, form: Literal["json", "console"], make: Callable[[], Any]
) -> None:
    value = make()
    configure(form, stream=stream)
    for name in ("measured", "token"):
        LOGGER.info("called", extra={name: value, "user": "ada"})
    LOGGER.info("token=s3cr3t %s", value)
    assert mask_secrets(None, "info", {"event": "called", "measured": value})["event"] == "called"
    assert stream.getvalue().count("ada") == 2
    assert "s3cr3t" not in stream.getvalue()


def test_arguments_that_do_not_fit_are_shown_without_secrets(stream: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    handler = configure("json", stream=stream)
    record = logging.LogRecord("shop", logging.INFO, __file__, 1, "%d apples", ("token=s3cr3t",), None)
    record.__dict__["password"] = "s3cr3t"
    handler.handle(record)
    assert "s3cr3t" not in capsys.readouterr().err
    assert record.__dict__["password"] == "***"


@pytest.mark.parametrize(
    "text", ["a-" * 500_000, "a" * 1_000_000, "token " * 160_000, "://a:" * 200_000, "password=" * 100_000]
)
def test_a_long_message_is_masked_in_linear_time(text: str) -> None:
    begun = time.process_time()
    MaskFilter().filter(logging.LogRecord("shop", logging.INFO, __file__, 1, text, (), None))
    assert time.process_time() - begun < 2
