"""The InfluxDB exporter passes the contract against Debian's InfluxDB, and tells its answers apart."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from eventcore.exporting import Secret
from eventcore.testing import ExporterContract, sample_counter, sample_gauge
from eventcore.testing.exporters.delivery import delivering
from tests.examples.influx import PASSWORD, USER, InfluxServer, InfluxSetup
from tests.real_parts.fixtures import _program

influx = pytest.importorskip("eventcore_influx", reason="`run.py authors` installs it")

pytestmark = pytest.mark.once
_NUMBERS = count()


@pytest.fixture(scope="session")
def influx_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxServer]:
    server = InfluxServer(_program("influxd"), tmp_path_factory.mktemp("influxd"))
    yield server
    server.stop()


class TestInflux(ExporterContract):
    @pytest.fixture
    def exporter_setup(self, influx_server: InfluxServer) -> InfluxSetup:
        return InfluxSetup(influx_server, f"contract{next(_NUMBERS)}")


def test_a_wrong_password_is_given_up_and_not_shown(influx_server: InfluxServer) -> None:
    wrong = "wr0ng-p4ss"
    exporter = influx.InfluxExporter(url=influx_server.url, database="any", username=USER, password=Secret(wrong))
    with delivering(exporter) as delivery:
        delivery.record(sample_counter())
        report = delivery.flush()
        assert not report.delivered
        assert (report.state, report.points_rejected > 0) == ("failing", True)
        assert "HTTP 401" in report.reason
        assert wrong not in f"{report}{delivery.pipeline.problem}"


def test_a_database_that_does_not_exist_is_given_up(influx_server: InfluxServer) -> None:
    exporter = influx.InfluxExporter(url=influx_server.url, database="nobody", username=USER, password=Secret(PASSWORD))
    with delivering(exporter) as delivery:
        delivery.record(sample_counter())
        assert "database not found" in delivery.flush().reason


def test_a_point_that_the_server_refuses_is_counted_and_the_others_are_kept(influx_server: InfluxServer) -> None:
    setup = InfluxSetup(influx_server, "conflict")
    # The field `value` of this measurement is an integer, which the exporter does not know.
    request = f"{influx_server.url}/write?db=conflict"
    import httpx

    httpx.post(request, content="taken value=1i", auth=(USER, PASSWORD)).raise_for_status()
    with delivering(setup.make()) as delivery:
        delivery.record(sample_counter("taken"), sample_gauge("fine", {("a",): 1}))
        report = delivery.flush()
        assert report.points_rejected == 2
        assert report.points_exported == 1
        assert "field type conflict" in delivery.pipeline.problem + report.reason
    assert [point.name for point in setup.received().points if point.name == "fine"] == ["fine"]
