"""The contract of stores in a project that has only pytest and pytest-asyncio, run on stores with a fault."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HEAD = """
import asyncio
import pytest
from eventcore.stores import CONFLICT, Checkpoint, MemoryBackend
from eventcore.testing import ProjectionContract, StoreContract

class Backend:
    '''A store in memory, which is its own log and ledger. A subclass replaces one method.'''

    def __init__(self, memory):
        self.memory = memory
        self.log = self.ledger = self

    def __getattr__(self, name):
        for part in (self.memory, self.memory.log, self.memory.ledger):
            if hasattr(part, name):
                return getattr(part, name)
        raise AttributeError(name)
"""

STORE = """
class {name}(Backend):
{method}

class Test{name}({contract}):
    @pytest.fixture
    def make_backend(self):
        memory = MemoryBackend()
        return lambda: {name}(memory)
"""

# A faulty store: its contract, its method, the test that must fail, and the message that says what a store has to do.
FAULTS = {
    "ChecksWrittenStreamsOnly": (
        "StoreContract",
        """
    async def append(self, requests):
        verdicts = []
        for request in requests:
            written = {new.recorded.stream_id for new in request.events}
            base = {stream: version for stream, version in request.base.items() if stream in written}
            expected = {stream: version for stream, version in request.expected.items() if stream in written}
            verdicts += await self.memory.log.append([type(request)(base, expected, request.events)])
        return verdicts
""",
        "test_a_stream_that_is_only_read_is_checked",
        "a stream that is read and not written must not have changed either",
    ),
    "LosesTheRestAfterAConflict": (
        "StoreContract",
        """
    async def append(self, requests):
        verdicts = list(await self.memory.log.append(requests[:1]))
        for request in requests[1:]:
            verdicts += [CONFLICT] if CONFLICT in verdicts else await self.memory.log.append([request])
        return verdicts
""",
        "test_one_conflict_refuses_one_request_and_leaves_no_gap",
        "a conflict must not affect the other requests of the call",
    ),
    "AppendsKnownKeysAgain": (
        "StoreContract",
        """
    async def append(self, requests):
        verdicts = []
        for request in requests:
            known = request.key is not None and request.key.key in await self.find_keys([request.key.key])
            if known:
                request = type(request)(request.base, request.expected, request.events)
            verdicts += await self.memory.log.append([request])
        return verdicts
""",
        "test_a_request_with_a_known_key_is_refused_alone",
        "a known key refuses its request whatever its streams say",
    ),
    "KeepsKeysInTheProcess": (
        "StoreContract",
        """
    async def append(self, requests):
        keys = vars(self).setdefault('keys', set())
        mine = [request.key.key for request in requests if request.key is not None]
        verdicts = await self.memory.log.append(requests)
        keys.update(mine)
        return verdicts

    async def find_keys(self, keys):
        found = await self.memory.log.find_keys(keys)
        return {key: record for key, record in found.items() if key in vars(self).get('keys', ())}
""",
        "test_an_accepted_request_stores_its_key",
        "assert {} == {",
    ),
    "LimitsBeforeItFilters": (
        "StoreContract",
        """
    async def scan(self, after, up_to, limit, wanted):
        return await self.memory.log.scan(after, min(up_to, after + limit), limit, wanted)
""",
        "test_a_limit_counts_only_events_that_match_the_filter",
        "the limit counts matching events only",
    ),
    "ForgetsTheTimeline": (
        "StoreContract",
        """
    async def follow(self, after, limit, wanted):
        log = self.memory.log.rows
        known = log[after.position - 1].event_id if 0 < after.position <= len(log) else ''
        return await self.memory.log.follow(Checkpoint(min(after.position, len(log)), known), limit, wanted)
""",
        "test_a_checkpoint_whose_event_is_gone_raises_history_diverged",
        "DID NOT RAISE .*HistoryDiverged",
    ),
    "SeesNoNews": (
        "StoreContract",
        """
    async def wait_beyond(self, position, timeout):
        return position
""",
        "test_waiting_beyond_an_earlier_position_returns_at_once",
        "assert 0 == 2",
    ),
    "FencesNobody": (
        "ProjectionContract",
        """
    async def commit_checkpoint(self, lease, before, after, dead_letters=(), apply=None):
        self.memory.ledger._entries[lease.projection].checkpoint = after
""",
        "test_a_checkpoint_moves_only_from_its_current_value",
        "DID NOT RAISE .*LeadershipLost",
    ),
    "LeasesToAll": (
        "ProjectionContract",
        """
    async def acquire_lease(self, projection, owner, seconds):
        return await self.memory.ledger.acquire_lease(projection, 'everybody', seconds)
""",
        "test_a_lease_has_one_holder_and_a_new_token_each_time",
        "while one owner holds the lease, no other gets it",
    ),
}


def pytest_of(directory: Path, source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (directory / "test_mine.py").write_text(source)
    # The default mode. Without a loop scope, pytest-asyncio would warn.
    modes = ["--asyncio-mode=strict", "-o", "asyncio_default_fixture_loop_scope=function"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rfE", *modes, *arguments],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.timeout(120)
def test_each_faulty_store_fails_the_test_that_names_its_fault(tmp_path: Path) -> None:
    source = HEAD + "".join(
        STORE.format(name=name, contract=contract, method=method) for name, (contract, method, _, _) in FAULTS.items()
    )
    chosen = [f"test_mine.py::Test{name}::{test}" for name, (_, _, test, _) in FAULTS.items()]
    done = pytest_of(tmp_path, source, *chosen)
    failed = {line.split("::")[1] for line in done.stdout.splitlines() if line.startswith("FAILED")}
    assert failed == {f"Test{name}" for name in FAULTS}, done.stdout
    for name, (_, _, _, message) in FAULTS.items():
        assert re.search(message, done.stdout), f"{name}: {message} is not in\n{done.stdout}"
    # pytest shows the compared values, although the assertion is in an installed package.
    assert "At index 2 diff: -1 != 3" in done.stdout


def test_without_make_backend_the_error_says_what_to_override(tmp_path: Path) -> None:
    source = "from eventcore.testing import StoreContract\nclass TestMine(StoreContract):\n    pass\n"
    done = pytest_of(tmp_path, source, "-k", "test_a_chain_is_accepted_in_order")
    assert done.returncode == 1
    assert "TestMine inherits the contract of stores: override its fixture make_backend" in done.stdout


def test_a_correct_store_passes_without_a_warning(tmp_path: Path) -> None:
    source = HEAD + STORE.format(name="Good", contract="StoreContract, ProjectionContract", method="    pass")
    done = pytest_of(tmp_path, source, "-W", "error", "-k", "stream or lease or refus")
    assert done.returncode == 0, done.stdout
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) > 30
