"""Where settings come from, and which of them counts."""

from __future__ import annotations

from eventcore.exporting.configuration.settings import TelemetrySettings
from eventcore.exporting.delivery.settings import PipelineSettings
from tests.exporting.projects import Project, loaded, reasons, values


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
