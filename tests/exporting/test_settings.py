from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from eventcore.errors import Fault
from eventcore.exporting import Exporter, hookimpl
from eventcore.exporting.configuration.discovery import GROUP, FoundPlugin
from eventcore.exporting.configuration.settings import Configuration, TelemetrySettings, load_configuration
from eventcore.exporting.configuration.sources import from_tables, nested
from eventcore.exporting.delivery.settings import PipelineSettings
from eventcore.exporting.registration import check_exporter


def installed(*plugins: str) -> list[FoundPlugin]:
    """Plugins as they are found, each of ``name`` or ``name@distribution``."""
    described = [plugin.partition("@") for plugin in plugins]
    return [
        FoundPlugin(EntryPoint(name, f"{name}:X", GROUP), dist or f"eventcore-{name}", "1.0") for name, _, dist in described
    ]


PLUGINS = installed("console@eventcore-core", "otel", "prometheus", "statsd@acme-statsd")


class Project:
    """A directory with a configuration file, and an environment."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environ: dict[str, str] = {}
        self.file = directory / "eventcore.toml"

    def load(
        self, config: Any = None, exporters: Any = None, plugins: list[FoundPlugin] = PLUGINS, **more: Any
    ) -> Configuration:
        return load_configuration(config, exporters, environ=self.environ, cwd=self.directory, plugins=plugins, **more)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def loaded(configuration: Configuration) -> list[str]:
    assert [str(fault) for fault in configuration.faults] == []
    return [plan.name for plan in configuration.exporters if plan.action == "load"]


def reasons(configuration: Configuration) -> dict[str, tuple[str, str]]:
    return {plan.name: (plan.action, plan.reason) for plan in configuration.exporters}


def faults(configuration: Configuration) -> list[str]:
    return [str(fault) for fault in configuration.faults]


def values(configuration: Configuration, name: str) -> dict[str, Any]:
    """The settings of an exporter as they were given, nested as in a file."""
    found: dict[str, Any] = nested({path: setting.value for path, setting in configuration.settings_of(name).items()})
    return found


def test_without_configuration_every_installed_exporter_is_loaded_but_not_cores_own(project: Project) -> None:
    configuration = project.load()
    assert loaded(configuration) == ["otel", "prometheus", "statsd"]
    assert configuration.telemetry == TelemetrySettings()
    assert not configuration.exporters_off
    action, reason = reasons(configuration)["console"]
    assert action == "not_enabled"
    assert "only when 'enabled' names it" in reason


def test_enabled_names_who_is_loaded_and_in_which_order(project: Project) -> None:
    project.file.write_text('[exporters]\nenabled = ["prometheus", "console", "otel"]')
    configuration = project.load()
    assert loaded(configuration) == ["prometheus", "console", "otel"]
    assert reasons(configuration)["statsd"] == ("not_enabled", f"not in {project.file} (exporters.enabled)")


def test_an_empty_list_enables_none(project: Project) -> None:
    project.file.write_text("[exporters]\nenabled = []")
    configuration = project.load()
    assert loaded(configuration) == []
    assert not configuration.exporters_off


def test_all_can_stand_beside_cores_own(project: Project) -> None:
    assert loaded(project.load(exporters=["console", "all"])) == ["console", "otel", "prometheus", "statsd"]


def test_disabled_wins_over_enabled(project: Project) -> None:
    project.file.write_text('[exporters]\nenabled = ["otel", "prometheus"]\ndisabled = ["prometheus"]')
    configuration = project.load()
    assert loaded(configuration) == ["otel"]
    assert reasons(configuration)["prometheus"] == ("disabled", f"disabled in {project.file} (exporters.disabled)")
    project.environ["EVENTCORE_EXPORTERS"] = "prometheus"
    assert loaded(project.load()) == []


def test_all_exporters_can_be_disabled(project: Project) -> None:
    project.file.write_text('[exporters]\nenabled = ["otel", "console"]\ndisabled = "all"\n[exporters.second]\nplugin = "otel"')
    configuration = project.load()
    assert loaded(configuration) == []
    assert {action for action, _ in reasons(configuration).values()} == {"disabled"}
    assert reasons(configuration).keys() == {"otel", "console", "prometheus", "statsd", "second"}
    assert reasons(configuration)["otel"][1] == f"disabled in {project.file} (exporters.disabled)"
    project.file.write_text("")
    project.environ["EVENTCORE_EXPORTERS__DISABLED"] = "all"
    assert loaded(project.load(exporters=["otel"])) == []


def test_disabling_a_plugin_disables_every_exporter_of_it(project: Project) -> None:
    project.file.write_text('[exporters]\ndisabled = ["otel"]\n[exporters.otel_backup]\nplugin = "otel"')
    configuration = project.load()
    assert loaded(configuration) == ["prometheus", "statsd"]
    assert reasons(configuration)["otel_backup"][1].startswith("its plugin 'otel' is disabled")


def test_the_environment_stands_above_code_and_code_above_the_file(project: Project) -> None:
    project.file.write_text('[exporters]\nenabled = ["otel"]')
    assert loaded(project.load()) == ["otel"]
    assert loaded(project.load(config={"exporters": {"enabled": ["prometheus"]}})) == ["prometheus"]
    assert loaded(project.load(config={"exporters": {"enabled": ["prometheus"]}}, exporters=["statsd"])) == ["statsd"]
    project.environ["EVENTCORE_EXPORTERS__ENABLED"] = "console"
    assert loaded(project.load(exporters=["statsd"])) == ["console"]
    project.environ["EVENTCORE_EXPORTERS"] = "otel, prometheus"
    assert loaded(project.load(exporters=["statsd"])) == ["otel", "prometheus"]
    project.environ["EVENTCORE_EXPORTERS"] = '["prometheus", "otel"]'
    assert loaded(project.load()) == ["prometheus", "otel"]


def test_all_and_none_are_words_of_their_own(project: Project) -> None:
    assert loaded(project.load(exporters="none")) == []
    assert loaded(project.load(exporters=[])) == []
    project.file.write_text("[exporters]\nenabled = []")
    assert loaded(project.load(exporters="all")) == ["otel", "prometheus", "statsd"]
    project.environ["EVENTCORE_EXPORTERS"] = "all"
    assert loaded(project.load()) == ["otel", "prometheus", "statsd"]


def test_the_kill_switch_is_the_variable_only(project: Project) -> None:
    assert not project.load(exporters="none").exporters_off
    project.environ["EVENTCORE_EXPORTERS"] = "none"
    configuration = project.load(exporters=["otel"])
    assert loaded(configuration) == []
    assert configuration.exporters_off


def test_an_empty_variable_counts_as_not_set(project: Project) -> None:
    project.environ |= {"EVENTCORE_EXPORTERS": "", "EVENTCORE_CONFIG": "", "EVENTCORE_TELEMETRY__SERVICE_NAME": ""}
    assert loaded(project.load()) == ["otel", "prometheus", "statsd"]


def test_a_variable_without_names_is_not_the_kill_switch(project: Project) -> None:
    project.environ["EVENTCORE_EXPORTERS"] = " , "
    configuration = project.load()
    assert not configuration.exporters_off
    assert len(configuration.faults) == 1


def test_settings_are_merged_key_by_key(project: Project) -> None:
    project.file.write_text('[exporters.otel]\nendpoint = "file"\nheaders = {a = "file", b = "file"}\ntimeout = 1')
    project.environ |= {
        "EVENTCORE_EXPORTERS__OTEL__ENDPOINT": "environment",
        "EVENTCORE_EXPORTERS__OTEL__HEADERS__C": "environment",
    }
    configuration = project.load(config={"exporters": {"otel": {"timeout": 2, "headers": {"b": "code"}}}})
    found = configuration.settings_of("otel")
    assert {path: (setting.value, setting.where) for path, setting in found.items()} == {
        ("endpoint",): ("environment", "environment"),
        ("timeout",): (2, "arguments"),
        ("headers", "a"): ("file", str(project.file)),
        ("headers", "b"): ("code", "arguments"),
        ("headers", "c"): ("environment", "environment"),
    }
    assert found["endpoint",].key == "EVENTCORE_EXPORTERS__OTEL__ENDPOINT"


def test_another_file_can_be_named_in_code_and_by_a_variable(project: Project) -> None:
    project.file.write_text('[telemetry]\nservice_name = "default"')
    (project.directory / "named.toml").write_text('[telemetry]\nservice_name = "variable"')
    (project.directory / "code.toml").write_text('[telemetry]\nservice_name = "code"')
    assert project.load().telemetry.service_name == "default"
    project.environ["EVENTCORE_CONFIG"] = "named.toml"
    assert project.load().telemetry.service_name == "variable"
    assert project.load(config="code.toml").telemetry.service_name == "code"
    assert project.load(config=project.file).files == (str(project.file),)


def test_arguments_of_code_stand_above_its_tables(project: Project) -> None:
    tables = {"telemetry": {"service_name": "tables", "series_limit": 5}}
    telemetry = project.load(config=tables, arguments={"telemetry": {"service_name": "argument"}}).telemetry
    assert (telemetry.service_name, telemetry.series_limit) == ("argument", 5)


def test_telemetry_is_read_from_file_and_environment(project: Project) -> None:
    project.file.write_text(
        '[telemetry]\nservice_name = "shop"\nresource = {"deployment.environment.name" = "production", zones = [1, 2]}\n'
        'traces_per_second = "all"\nverbosity = "verbose"\nseries_limit = 7'
    )
    assert project.load().telemetry == TelemetrySettings(
        service_name="shop",
        resource={"deployment.environment.name": "production", "zones": [1, 2]},
        traces_per_second="all",
        verbosity="verbose",
        series_limit=7,
    )
    project.environ |= {
        "EVENTCORE_TELEMETRY__TRACES_PER_SECOND": "2.5",
        "EVENTCORE_TELEMETRY__VERBOSITY": "off",
        "EVENTCORE_TELEMETRY__SERIES_LIMIT": "9",
        "EVENTCORE_TELEMETRY__RESOURCE": '{host = "h"}',
    }
    telemetry = project.load().telemetry
    assert (telemetry.traces_per_second, telemetry.verbosity, telemetry.series_limit) == (2.5, "off", 9)
    assert telemetry.resource == {"host": "h"}


def test_a_section_with_a_plugin_is_a_second_exporter_of_it(project: Project) -> None:
    project.file.write_text('[exporters.otel_backup]\nplugin = "otel"\nendpoint = "other"')
    project.environ |= {"EVENTCORE_EXPORTERS__SCREEN__PLUGIN": "console", "EVENTCORE_EXPORTERS__SCREEN__SPANS": "false"}
    configuration = project.load()
    assert loaded(configuration) == ["otel", "prometheus", "statsd", "otel_backup", "screen"]
    backup = next(plan for plan in configuration.exporters if plan.name == "otel_backup")
    assert backup.found is not None
    assert (backup.plugin, backup.found.name) == ("otel", "otel")
    assert values(configuration, "otel_backup") == {"endpoint": "other"}
    assert loaded(project.load(exporters=["otel_backup"])) == ["otel_backup"]


def test_pipelines_are_cores_settings_also_for_exporters_that_code_registers(project: Project) -> None:
    project.file.write_text("[exporters.otel.pipeline]\ninterval = 10\nspan_queue = 5\n[exporters.mine.pipeline]\ninterval = 3")
    project.environ["EVENTCORE_EXPORTERS__OTEL__PIPELINE__INTERVAL"] = "0.5"
    configuration = project.load()
    assert loaded(configuration) == ["otel", "prometheus", "statsd"]
    assert configuration.pipeline_for("otel") == PipelineSettings(interval=0.5, span_queue=5)
    assert configuration.pipeline_for("mine") == PipelineSettings(interval=3.0)
    assert configuration.pipeline_for("nobody") == PipelineSettings()
    # An exporter's own defaults count for what the configuration leaves out.
    own = {"span_queue": 7, "span_batch": 8}
    assert configuration.pipeline_for("otel", own) == PipelineSettings(interval=0.5, span_queue=5, span_batch=8)


def test_references_to_the_environment_are_replaced_in_the_file(project: Project) -> None:
    project.file.write_text(
        '[telemetry]\nservice_name = "${NAME}-${NAME}"\n[exporters.otel]\n'
        'headers = {authorization = "Bearer ${TOKEN}", plain = "$${TOKEN} costs 5$"}\nlists = [["${NAME}"]]'
    )
    project.environ |= {"NAME": "shop", "TOKEN": "t"}
    configuration = project.load()
    assert configuration.faults == ()
    assert configuration.telemetry.service_name == "shop-shop"
    found = values(configuration, "otel")
    assert found["headers"] == {
        "authorization": "Bearer t",
        "plain": "${TOKEN} costs 5$",
    }
    assert found["lists"] == [["shop"]]


def test_references_in_code_and_in_variables_are_texts_like_any_other(project: Project) -> None:
    project.environ |= {"NAME": "shop", "EVENTCORE_EXPORTERS__OTEL__ENDPOINT": "${NAME}"}
    configuration = project.load(config={"exporters": {"otel": {"user": "${NAME}"}}})
    assert values(configuration, "otel") == {"endpoint": "${NAME}", "user": "${NAME}"}


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
