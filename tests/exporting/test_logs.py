"""What plugins cause to be logged is bounded in rate and size, whatever their values and exceptions do."""

from __future__ import annotations

import logging
from typing import Any, NoReturn

import pytest

from eventcore.exporting.logs import bounded_logger


@pytest.fixture
def logger(request: pytest.FixtureRequest) -> logging.Logger:
    return bounded_logger(f"tests.{request.node.name}")


def raises(*_: Any) -> NoReturn:
    raise SystemExit("from inside")


HOSTILE: Any = type("Hostile", (Exception,), {"__str__": raises, "__repr__": raises, "__cause__": property(raises)})


def formatted(caplog: pytest.LogCaptureFixture) -> list[str]:
    # As an application's handler does.
    return [logging.Formatter("%(message)s").format(record) for record in caplog.records]


def test_a_message_of_any_size_is_cut(logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("é" * 20_000_000)
    except ValueError as error:
        logger.warning("it failed: %s", error, exc_info=error)
        logger.exception("x" * 20_000_000)
    first, second = formatted(caplog)
    assert first.startswith("it failed: ééé")
    assert "ValueError: é" in first
    assert len(first) <= 2 * 4096 + 1
    assert len(second) <= 2 * 4096 + 1


def test_a_value_or_an_exception_that_cannot_be_shown_is_logged_all_the_same(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        raise HOSTILE
    except Exception as error:
        logger.warning("it failed: %s", error, exc_info=True)
        logger.warning(error)
        logger.warning("%(a)s", {"a": error})
        logger.warning("too few: %s %s", "x")  # noqa: PLE1206  # a mistake of the caller
    for text, part in zip(formatted(caplog), ("it failed: ", "Hostile", "whose text raises", "too few: %s %s x"), strict=True):
        assert part in text
    assert "Traceback" in formatted(caplog)[0]


def test_a_harmless_record_keeps_its_arguments(logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    logger.warning("%s of %d", "one", 2)
    (record,) = caplog.records
    assert (record.msg, record.args) == ("%s of %d", ("one", 2))


def test_a_percent_sign_and_a_lone_surrogate_are_plain_text(logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    logger.warning("%s", ["100%s", "\udfff"])
    (text,) = formatted(caplog)
    assert "100%s" in text
    text.encode()


def test_the_rate_is_bounded_and_what_is_left_out_is_counted(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("eventcore.exporting.logs.time.monotonic", lambda: now)
    for number in range(50):
        logger.warning("number %d", number)
    assert len(caplog.records) == 20
    now += 11
    logger.warning("next %d", 1)
    assert formatted(caplog)[-1] == "next 1 (30 messages before this one were left out)"
