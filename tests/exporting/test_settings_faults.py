"""Faults of a configuration: each is found, with its place, and the right part stays."""

from __future__ import annotations

from typing import Any

import pytest

from eventcore.errors import Fault
from eventcore.exporting import Exporter, hookimpl
from eventcore.exporting.configuration.settings import TelemetrySettings
from eventcore.exporting.configuration.sources import from_tables, nested
from eventcore.exporting.delivery.settings import PipelineSettings
from eventcore.exporting.registration import check_exporter
from tests.exporting.projects import Project, faults, installed, loaded, reasons, values


def test_every_fault_is_found_at_once_with_its_file_and_key(project: Project) -> None:
    project.file.write_text(
        """
        surprise = 1
        [telemetri]
        [telemetry]
        service_nam = "x"
        series_limit = "many"
        resource = {zone = "${ZONE}", bad = "${not a name}"}
        [exporters]
        enabled = ["otel", "promtheus"]
        enabeld = ["otel"]
        [exporters.Bad-Name]
        [exporters.otel.pipeline]
        intervall = 5
        span_queue = 0
        [exporters.otel_backup]
        plugin = 7
        [exporters.graphite]
        host = "x"
        """
    )
    project.environ |= {
        "EVENTCORE_TELEMETRY__COLOUR": "red",
        "EVENTCORE_TELEMETRY_SERVICE_NAME": "shop",
        "EVENTCORE_EXPORTER": "otel",
        "EVENTCORE_EXPORTERS__STATSD": "on",
    }
    variables = (
        "EVENTCORE_EXPORTERS, EVENTCORE_EXPORTERS__NAME__KEY, EVENTCORE_TELEMETRY__KEY or EVENTCORE_HEALTH__KEY "
        "(two underscores between the parts)"
    )
    found = faults(project.load())
    assert len(found) == 17
    rest = "\n".join(found)
    for expected in (
        "telemetry.resource.zone: the environment variable ZONE is not set; set it, or write $${ZONE} for a plain ${ZONE}",
        "telemetry.resource.bad: ${not a name} names no variable; expected letters, digits and underscores",
        f"environment: EVENTCORE_EXPORTER: no such variable is known; expected {variables}",
        f"environment: EVENTCORE_TELEMETRY_SERVICE_NAME: no such variable is known; expected {variables}",
        f"{project.file}: surprise: unknown key 'surprise'; expected one of telemetry, exporters",
        f"{project.file}: telemetri: unknown key 'telemetri'; did you mean 'telemetry'?; expected one of telemetry, exporters",
        f"{project.file}: telemetry.service_nam: unknown key 'service_nam'; did you mean 'service_name'?",
        f"{project.file}: telemetry.series_limit: expected int >= 1 and <= 10000000, got 'many'",
        "environment: EVENTCORE_TELEMETRY__COLOUR: unknown key 'colour'; expected one of service_name, resource,",
        f"{project.file}: exporters.enabled: there is no exporter plugin 'promtheus'; did you mean 'prometheus'?",
        f"{project.file}: exporters.enabeld: 'enabeld' is no key; did you mean 'enabled'?",
        "exporters.Bad-Name: the exporter name 'Bad-Name' does not fit",
        f"{project.file}: exporters.otel.pipeline.intervall: unknown key 'intervall'; did you mean 'interval'?",
        f"{project.file}: exporters.otel.pipeline.span_queue: expected int >= 1 and <= 1000000, got 0",
        f"{project.file}: exporters.otel_backup.plugin: expected the name of a plugin, as a text",
        f"{project.file}: exporters.graphite: there is no exporter plugin 'graphite'",
        "environment: EVENTCORE_EXPORTERS__STATSD: 'statsd' is no key; expected a table, got a str",
    ):
        assert expected in rest


@pytest.mark.parametrize(
    ("content", "variable", "expected"),
    [
        ('[[exporters]]\nenabled = ["otel"]', "EXPORTERS__OTEL__ENDPOINT", "exporters: expected a table, got a list"),
        ("[exporters]\nconsole = 'x'", "EXPORTERS__CONSOLE__SPANS", "'console' is no key; expected a table, got a str"),
        ("[exporters.otel]\npipeline = 3", "EXPORTERS__OTEL__PIPELINE__INTERVAL", "pipeline: expected a table, got a int"),
        ("telemetry = true", "TELEMETRY__SERVICE_NAME", "telemetry: expected a table, got a bool"),
        ("[telemetry]\nresource = 3", "TELEMETRY__RESOURCE__ZONE", "telemetry.resource: expected dict[str, "),
    ],
)
def test_a_value_in_place_of_a_table_is_a_fault_also_when_a_variable_sets_a_key_of_the_table(
    project: Project, content: str, variable: str, expected: str
) -> None:
    project.file.write_text(content)
    for environ in ({}, {f"EVENTCORE_{variable}": "5"}):
        project.environ = environ
        (fault,) = faults(project.load())
        assert fault.startswith(f"{project.file}: ")
        assert expected in fault


@pytest.mark.parametrize(
    ("content", "tables", "expected"),
    [
        ("telemetry = 3", {"telemetry": {}}, "telemetry: expected a table, got a int"),
        ("exporters = 3", {"exporters": {}}, "exporters: expected a table, got a int"),
        ("[exporters]\notel = 3", {"exporters": {"otel": {}}}, "'otel' is no key; expected a table, got a int"),
    ],
)
def test_an_empty_table_of_code_does_not_hide_a_wrong_value_in_the_file(
    project: Project, content: str, tables: dict[str, Any], expected: str
) -> None:
    project.file.write_text(content)
    for configuration in (project.load(tables), project.load(arguments=tables)):
        (fault,) = faults(configuration)
        assert fault.startswith(f"{project.file}: ")
        assert expected in fault


def test_a_setting_does_not_show_its_value() -> None:
    tables = {"exporters": {"otel": {"token": "s3cr3t"}}}
    settings, _ = from_tables(tables)
    assert nested({path: setting.value for path, setting in settings.items()}) == tables
    assert "s3cr3t" not in repr(settings)


def test_a_value_for_the_whole_table_replaces_what_lower_sources_say_key_by_key(project: Project) -> None:
    project.file.write_text('[exporters.otel.headers]\na = "file"')
    project.environ["EVENTCORE_EXPORTERS__OTEL__HEADERS"] = '{b = "variable"}'
    assert values(project.load(), "otel") == {"headers": '{b = "variable"}'}


def test_a_key_with_a_dot_is_one_key(project: Project) -> None:
    project.file.write_text('[telemetry.resource]\n"a.b" = 1\n[exporters.otel.headers]\n"x.y" = "z"')
    configuration = project.load()
    assert configuration.telemetry.resource == {"a.b": 1}
    assert list(values(configuration, "otel")["headers"]) == ["x.y"]
    project.file.write_text("[telemetry.resource]\na.b = 1")
    assert "telemetry.resource.a: expected str | bool | int | float | list" in faults(project.load())[0]


def test_the_right_part_of_a_faulty_configuration_is_there(project: Project) -> None:
    project.file.write_text(
        '[telemetry]\nservice_name = "shop"\nverbosity = "loud"\n[exporters.otel.pipeline]\ninterval = 5\nspan_queue = 0'
    )
    configuration = project.load()
    assert len(configuration.faults) == 2
    assert configuration.telemetry == TelemetrySettings(service_name="shop")
    assert configuration.pipeline_for("otel") == PipelineSettings(interval=5)
    assert [fault.key for fault in configuration.faults_of("otel")] == ["exporters.otel.pipeline.span_queue"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[telemetry\nx = 1", "it is not TOML: Expected ']' at the end of a table declaration (at line 1, column 11)"),
        (b"\xff\xfe", "it is not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_toml_says_where(project: Project, content: bytes, expected: str) -> None:
    project.file.write_bytes(content)
    (fault,) = project.load().faults
    assert (fault.where, fault.key) == (str(project.file), "file")
    assert expected in fault.problem


def test_a_file_that_cannot_be_read_is_a_fault_and_no_file_is_none(project: Project) -> None:
    assert project.load().faults == ()
    project.environ["EVENTCORE_CONFIG"] = "missing.toml"
    (fault,) = project.load().faults
    assert fault.where == str(project.directory / "missing.toml")
    assert fault.problem == "it cannot be read: No such file or directory; expected a readable TOML file"
    assert "Is a directory" in project.load(config=str(project.directory)).faults[0].problem


def test_arguments_of_the_wrong_kind_are_faults(project: Project) -> None:
    assert "expected a mapping, or the path of a file, got int" in faults(project.load(config=7))[0]
    assert faults(project.load(config={"exporters": ["otel"]})) == ["arguments: exporters: expected a table, got a list"]
    assert faults(project.load(config={"telemetry": {3: "x"}})) == ["arguments: telemetry.3: a key is a str; got a int"]
    assert 'expected a list of names of exporters, "all" or "none"' in faults(project.load(exporters="otel"))[0]
    assert 'expected a list of names of exporters, "all" or "none"' in faults(project.load(exporters=7))[0]
    assert "'none' cannot be combined with other names" in faults(project.load(exporters=["none", "otel"]))[0]


def test_a_table_in_code_that_contains_itself_is_a_fault_of_its_key(project: Project) -> None:
    section: dict[str, Any] = {"port": 1}
    section["again"] = section
    resource: dict[str, Any] = {"zone": "a", "deep": {}}
    resource["deep"]["more"] = resource
    everything: dict[str, Any] = {"exporters": {"statsd": section}, "telemetry": {"resource": resource}}
    everything["exporters"]["whole"] = everything
    configuration = project.load(everything)
    expected = "the table contains itself; expected a table without itself inside"
    found = [str(fault) for fault in configuration.faults if "contains itself" in fault.problem]
    assert found == [
        f"arguments: exporters.whole: {expected}",
        f"arguments: exporters.statsd.again: {expected}",
        f"arguments: telemetry.resource.deep.more: {expected}",
    ]
    assert values(configuration, "statsd") == {"port": 1}


def test_a_table_in_code_may_be_in_two_places(project: Project) -> None:
    shared = {"interval": 5}
    config = {"exporters": {"statsd": {"pipeline": shared}, "prometheus": {"plugin": "statsd", "pipeline": shared}}}
    configuration = project.load(config)
    assert faults(configuration) == []
    assert [configuration.pipeline_for(name).interval for name in ("statsd", "prometheus")] == [5, 5]


def test_a_known_plugin_that_is_not_installed_says_what_to_install(project: Project) -> None:
    project.file.write_text('[exporters.otel]\nendpoint = "x"')
    bare = installed("console@eventcore-core")
    expected = "the plugin 'otel' is not installed; install it: pip install 'eventcore-core[otel]'"
    assert project.load(plugins=bare).faults == (Fault(str(project.file), "exporters.otel", expected),)
    project.environ["EVENTCORE_EXPORTERS"] = "otel"
    assert project.load(plugins=bare).faults == (Fault("environment", "EVENTCORE_EXPORTERS", expected),)
    (fault,) = project.load(plugins=bare, config={"exporters": {"otel": {"plugin": "zabbix"}}}).faults
    assert "'otel' comes with pip install 'eventcore-core[otel]'" in fault.problem


def test_the_section_of_a_known_plugin_that_is_neither_enabled_nor_installed_is_no_fault(project: Project) -> None:
    project.file.write_text('[exporters]\nenabled = ["prometheus"]\n[exporters.otel]\nendpoint = "x"')
    configuration = project.load(plugins=installed("prometheus"))
    assert loaded(configuration) == ["prometheus"]
    assert reasons(configuration)["otel"][1].endswith("and not installed")


def test_the_section_of_an_exporter_that_is_not_loaded_is_checked_as_far_as_can_be(project: Project) -> None:
    project.file.write_text(
        '[exporters]\nenabled = []\n[exporters.otel.pipeline]\ninterval = "5"\n[exporters.graphite]\nhost = "x"'
    )
    found = project.load().faults
    assert [fault.key for fault in found] == ["exporters.otel.pipeline.interval", "exporters.graphite"]


def test_one_plugin_name_of_two_distributions_is_a_fault_that_names_both_unless_it_is_not_loaded(project: Project) -> None:
    twins = installed("otel@eventcore-otel", "otel@acme-otel", "prometheus")
    (fault,) = project.load(plugins=twins).faults
    assert "eventcore-otel 1.0 and acme-otel 1.0 each bring a plugin 'otel'" in fault.problem
    assert loaded(project.load(plugins=twins, exporters=["prometheus"])) == ["prometheus"]
    assert loaded(project.load(plugins=twins, config={"exporters": {"disabled": ["otel"]}})) == ["prometheus"]


def test_disabling_what_is_not_installed_is_fine_unless_something_else_was_meant(project: Project) -> None:
    assert loaded(project.load(config={"exporters": {"disabled": ["graphite"]}})) == ["otel", "prometheus", "statsd"]
    (fault,) = project.load(config={"exporters": {"disabled": ["promethus"]}}).faults
    assert str(fault) == "arguments: exporters.disabled: there is no exporter 'promethus'; did you mean 'prometheus'?"


def test_a_variable_in_lower_case_parts_is_the_same_variable(project: Project) -> None:
    project.environ["EVENTCORE_EXPORTERS__otel__Endpoint"] = "x"
    assert values(project.load(), "otel") == {"endpoint": "x"}
    project.environ["EVENTCORE_EXPORTERS__OTEL__ENDPOINT"] = "y"
    assert "another variable sets the same key" in faults(project.load())[0]


def test_a_pull_exporter_takes_no_interval(project: Project) -> None:
    class Pulled(Exporter):
        interval = None

        @hookimpl
        def export_counters(self, counters: Any, timeout: float) -> None: ...

    project.file.write_text("[exporters.prometheus.pipeline]\ninterval = 5\n[exporters.otel.pipeline]\nspan_queue = 5")
    configuration = project.load()
    handle = check_exporter(Pulled())
    assert configuration.pull_interval_faults("prometheus", handle.interval) == [
        Fault(
            str(project.file),
            "exporters.prometheus.pipeline.interval",
            "'prometheus' is a pull exporter, whose cycles come from outside; leave the interval out",
        )
    ]
    assert configuration.pull_interval_faults("otel", handle.interval) == []
    assert configuration.pull_interval_faults("prometheus", 10.0) == []
