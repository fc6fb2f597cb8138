"""The short form of ``run.py workers``: one server, six seconds, two kills."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.real_parts.finding import PartMissing, find_part
from tests.real_parts.ports import free_ports
from tests.real_parts.waiting import wait_until
from tests.workers.proof import WORKERS, Account, prove, raise_of, serving


@pytest.mark.timeout(120)
def test_prometheus_counts_what_the_clients_were_told_while_workers_are_killed(tmp_path: Path) -> None:
    try:
        program = find_part("prometheus")
    except PartMissing as missing:
        pytest.skip(str(missing))
    account = prove("gunicorn --preload", 6.0, 2.0, program, tmp_path)
    assert account.kills == [True, False]
    assert account.acknowledged > 100
    assert account.adds_up, str(account)


@pytest.mark.timeout(120)
def test_without_a_port_the_mount_of_every_worker_has_the_page_of_all(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with serving("uvicorn", tmp_path, port, 0) as (url, _):

        def shown() -> set[str]:
            lines = httpx.get(f"{url}/metrics", timeout=10).text.splitlines()
            return {line for line in lines if line.startswith("eventcore_exporters_worker_up")}

        expected = {f'eventcore_exporters_worker_up{{worker="{worker}"}} 1' for worker in range(WORKERS)}
        wait_until(lambda: shown() == expected, 20, "every worker is on the page")
        answered = {httpx.get(f"{url}/pid", timeout=10).json()["pid"] for _ in range(10)}
        assert len(answered) > 1
        assert all(shown() == expected for _ in range(10))


def test_the_raises_of_a_counter_are_added_up_across_restarts() -> None:
    assert raise_of([5]) == 5
    assert raise_of([5, 5, 9]) == 9
    assert raise_of([5, 9, 2, 2, 3]) == 12


def test_a_difference_above_the_commands_of_one_second_for_each_kill_is_noticed() -> None:
    account = Account(acknowledged=1000, counted=900, busiest_second=100, kills=[True])
    assert account.adds_up
    assert not Account(acknowledged=1000, counted=899, busiest_second=100, kills=[True]).adds_up
    assert not Account(acknowledged=1000, counted=1001).adds_up
