from __future__ import annotations

import traceback
from collections.abc import Mapping
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

from eventcore.errors import InvalidExporter
from eventcore.exporting import Secret
from eventcore.exporting.configuration.signature import bind_settings, masked
from eventcore.exporting.configuration.sources import Settings, below, from_environment, from_file, from_tables, merge
from eventcore.exporting.delivery.handle import PluginOrigin

ORIGIN = PluginOrigin("backend", "acme-backend", "4.5.6")
PASSWORD = "correct-horse"


class Registry:
    """Something that no configuration can hold."""


class Login(msgspec.Struct):
    user: str
    password: Secret


def backend(
    endpoint: str,
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 4317,
    ratio: float = 0.5,
    insecure: bool = False,
    compression: Literal["none", "gzip"] = "none",
    token: Secret | None = None,
    headers: dict[str, Secret] | None = None,
    tags: Mapping[str, str] | None = None,
    names: tuple[str, ...] = (),
    path: Path = Path(),
    login: Login | None = None,
    registry: Registry | None = None,
) -> None: ...


def given(tables: dict[str, Any] | None = None, **environment: str) -> Settings:
    """Settings from code, with variables above them."""
    low, _ = from_tables({"exporters": {"backend": tables or {}}})
    high, faults = from_environment({f"EVENTCORE_EXPORTERS__BACKEND__{name}": value for name, value in environment.items()})
    assert faults == []
    return {path: setting for path, setting in below(merge(low, high), "exporters", "backend").items() if path}


def bind(settings: Settings, factory: Any = backend) -> tuple[dict[str, Any], list[str]]:
    arguments, faults = bind_settings(factory, settings, name="backend", origin=ORIGIN)
    return arguments, [str(fault) for fault in faults]


def test_settings_become_the_keyword_arguments_of_the_callable() -> None:
    settings = given(
        {
            "endpoint": "http://localhost",
            "port": 1,
            "ratio": 1,
            "token": "s",
            "headers": {"authorization": "x"},
            "tags": {"a": "b"},
            "names": ["n"],
            "path": "/var",
            "login": {"user": "u", "password": "p"},
        }
    )
    arguments, faults = bind(settings)
    assert faults == []
    assert arguments == {
        "endpoint": "http://localhost",
        "port": 1,
        "ratio": 1.0,
        "token": Secret("s"),
        "headers": {"authorization": Secret("x")},
        "tags": {"a": "b"},
        "names": ("n",),
        "path": Path("/var"),
        "login": Login("u", Secret("p")),
    }


def test_text_from_the_environment_is_coerced_to_the_type_of_the_parameter() -> None:
    settings = given(
        ENDPOINT="[::1]:4317",
        PORT="99",
        RATIO="0.25",
        INSECURE="true",
        COMPRESSION="gzip",
        TOKEN="[s]",
        HEADERS='{authorization = "x"}',
        TAGS__A="b",
        NAMES='["n", "m"]',
        PATH="/var",
    )
    arguments, faults = bind(settings)
    assert faults == []
    assert arguments == {
        "endpoint": "[::1]:4317",
        "port": 99,
        "ratio": 0.25,
        "insecure": True,
        "compression": "gzip",
        "token": Secret("[s]"),
        "headers": {"authorization": Secret("x")},
        "tags": {"a": "b"},
        "names": ("n", "m"),
        "path": Path("/var"),
    }


def test_values_from_code_and_files_are_not_coerced() -> None:
    _, faults = bind(given({"endpoint": "e", "port": "99", "insecure": 1, "ratio": "0.5"}))
    assert faults == [
        "arguments: exporters.backend.port: expected int >= 1 and <= 65535, got '99'",
        "arguments: exporters.backend.insecure: expected bool, got 1",
        "arguments: exporters.backend.ratio: expected float, got '0.5'",
    ]


def test_every_fault_is_reported_with_its_key_and_what_was_expected() -> None:
    settings = given({"prot": 1, "port": 0, "compression": "zip", "tags": {"a": 1, "b": 2}, "names": "n", "path": 3})
    _, faults = bind(settings)
    assert sorted(faults) == [
        "arguments: exporters.backend.compression: expected one of 'none', 'gzip', got 'zip'",
        "arguments: exporters.backend.names: expected tuple[str, ...], got 'n'",
        "arguments: exporters.backend.path: expected str, got 3",
        "arguments: exporters.backend.port: expected int >= 1 and <= 65535, got 0",
        (
            "arguments: exporters.backend.prot: unknown key 'prot'; did you mean 'port'?; expected one of endpoint, port, "
            "ratio, insecure, compression, token, headers, tags, names, path, login"
        ),
        "arguments: exporters.backend.tags.a: expected str, got 1",
        "arguments: exporters.backend.tags.b: expected str, got 2",
        "eventcore.toml: exporters.backend.endpoint: it is missing; expected str",
    ]


def test_a_fault_in_the_environment_names_the_variable_and_not_its_value() -> None:
    _, faults = bind(
        given(ENDPOINT="e", PORT=PASSWORD, INSECURE="maybe", NAMES="a,b", HEADERS__AUTHORIZATION="fine", TAGS="{a")
    )
    assert faults == [
        "environment: EVENTCORE_EXPORTERS__BACKEND__INSECURE: expected bool (true or false), got a text that is not shown",
        (
            "environment: EVENTCORE_EXPORTERS__BACKEND__NAMES: expected tuple[str, ...] as a TOML value, "
            'for example ["a", "b"], got a text that is not shown'
        ),
        "environment: EVENTCORE_EXPORTERS__BACKEND__PORT: expected int >= 1 and <= 65535, got a text that is not shown",
        (
            "environment: EVENTCORE_EXPORTERS__BACKEND__TAGS: expected Mapping[str, str] | None as a TOML value, "
            'for example {name = "value"}, got a text that is not shown'
        ),
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {"token": [PASSWORD]},
        {"token": {"value": PASSWORD}},
        {"headers": {"authorization": [PASSWORD]}},
        {"headers": PASSWORD},
        {"headers": [PASSWORD]},
        {"login": {"user": PASSWORD, "password": [PASSWORD]}},
        {"login": {"user": 1, "password": PASSWORD}},
        {"login": PASSWORD},
        {"tokn": PASSWORD},
    ],
)
def test_a_secret_is_never_repeated_in_a_fault(settings: dict[str, Any]) -> None:
    arguments, faults = bind(given({"endpoint": "e", **settings}))
    assert len(faults) == 1
    assert PASSWORD not in faults[0]
    assert faults[0].startswith("arguments: exporters.backend.")
    assert arguments == {"endpoint": "e"}


def test_a_setting_that_refers_to_the_environment_is_not_repeated_either(tmp_path: Path) -> None:
    file = tmp_path / "eventcore.toml"
    file.write_text('endpoint = "${HOST}"\nport = "${PORT}"\ncompression = "x${HOST}"\n')
    tree, _ = from_file(file, {"HOST": PASSWORD, "PORT": "77"})
    assert tree is not None
    arguments, faults = bind(tree)
    assert arguments == {"endpoint": PASSWORD, "port": 77}
    assert faults == [f"{file}: compression: expected one of 'none', 'gzip', got a text that is not shown"]
    assert masked(tree, backend) == {"endpoint": "${HOST}", "port": "${PORT}", "compression": "x${HOST}"}


def test_what_only_code_can_pass_cannot_be_set() -> None:
    _, faults = bind(given({"endpoint": "e", "registry": "default"}))
    assert faults == [
        (
            "arguments: exporters.backend.registry: 'registry' takes Registry | None, which only code can pass; "
            "leave it out and register the exporter in code"
        )
    ]


def plain_settings(host: str, _port: int = 1) -> None: ...


class Typed:
    def __init__(self, host: "list[str]") -> None: ...  # noqa: UP037 - an annotation in quotes is the point


def test_classes_functions_and_quoted_annotations_are_schemas() -> None:
    assert bind(given({"host": "h", "_port": 2}), plain_settings) == ({"host": "h", "_port": 2}, [])
    assert bind(given({"host": ["h"]}), Typed) == ({"host": ["h"]}, [])


def test_a_plugin_without_settings_takes_none() -> None:
    class Bare: ...

    assert bind(given(), Bare) == ({}, [])
    assert bind(given({"port": 1}), Bare)[1] == [
        "arguments: exporters.backend.port: unknown key 'port'; nothing can be set here"
    ]


def open_ended(*hosts: str, **rest: int) -> None: ...


def positional(host: str, /) -> None: ...


def taken(plugin: str = "", pipeline: str = "") -> None: ...


def unannotated(host) -> None: ...  # type: ignore[no-untyped-def]  # that it is untyped is the point


def unresolved(host: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821 - that it cannot be resolved is the point


def only_code(registry: Registry) -> None: ...


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        (
            open_ended,
            ["'*hosts: str' takes settings that no one can check", "'**rest: int' takes settings that no one can check"],
        ),
        (positional, ["'host' is positional-only"]),
        (taken, ["'plugin' is a key of eventcore's own", "'pipeline' is a key of eventcore's own"]),
        (unannotated, ["'host' has no annotation; expected one, for example 'host: str'"]),
        (unresolved, ["an annotation cannot be resolved: name 'Nowhere' is not defined"]),
        (only_code, ["'registry' is required, but Registry cannot be set from configuration"]),
        (dict, ["signature"]),
    ],
)
def test_a_signature_that_is_no_schema_is_the_fault_of_the_plugin(factory: Any, expected: list[str]) -> None:
    with pytest.raises(InvalidExporter) as caught:
        bind(given(), factory)
    message = str(caught.value)
    assert [part for part in expected if part not in message] == []
    assert f"plugin 'backend' of acme-backend 4.5.6, {factory.__qualname__}" in message


def test_settings_are_shown_with_their_secrets_masked() -> None:
    settings = given(
        {"endpoint": "e", "token": PASSWORD, "headers": {"authorization": PASSWORD}, "login": {"password": PASSWORD}}
    )
    shown = masked(settings, backend)
    assert shown["endpoint"] == "e"
    assert shown["token"] == "***"
    assert shown["headers"] == {"authorization": "***"}
    assert PASSWORD not in repr(shown)
    with pytest.raises(TypeError):
        shown["endpoint"] = "f"  # type: ignore[index]  # that it is read-only is the point


class Level(Enum):
    LOW = "low"
    HIGH = "high"


def service(level: Level = Level.LOW, wait: timedelta = timedelta(1), pause: timedelta | None = None) -> None: ...


DURATION = "a duration (a number of seconds, or a text such as 'PT1M30S' or 'P1D')"


def test_an_enum_takes_its_values_and_a_duration_takes_seconds_or_a_text() -> None:
    arguments, faults = bind(given({"level": "high", "wait": 2.5}, PAUSE="10"), service)
    assert faults == []
    assert arguments == {"level": Level.HIGH, "wait": timedelta(seconds=2.5), "pause": timedelta(seconds=10)}
    arguments, faults = bind(given({"wait": "PT1M30S", "pause": "P1D"}), service)
    assert (arguments, faults) == ({"wait": timedelta(seconds=90), "pause": timedelta(days=1)}, [])


def test_the_fault_of_an_enum_or_a_duration_says_what_is_valid() -> None:
    _, faults = bind(given({"level": "middle", "wait": "10s", "pause": 1e300}), service)
    assert faults == [
        "arguments: exporters.backend.level: expected one of 'low', 'high', got 'middle'",
        f"arguments: exporters.backend.wait: expected {DURATION}, got '10s'",
        f"arguments: exporters.backend.pause: expected {DURATION} | None, got 1e+300",
    ]
    _, faults = bind(given(LEVEL="top", WAIT="soon"), service)
    assert [fault.partition("expected ")[2] for fault in faults] == [
        "one of 'low', 'high', got a text that is not shown",
        f"{DURATION}, got a text that is not shown",
    ]
    assert bind(given({"pause": True}), service)[1] == [
        f"arguments: exporters.backend.pause: expected {DURATION} | None, got True"
    ]


def test_a_secret_is_not_found_in_what_an_error_keeps_either() -> None:
    try:
        _, faults = bind(given({"endpoint": "e", "token": [PASSWORD]}))
        raise ValueError(faults)
    except ValueError:
        assert PASSWORD not in traceback.format_exc()
