from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eventcore import StreamId, open_store
from eventcore.errors import InvalidInput, InvalidStoreUrl, MissingDependency
from eventcore.stores import Backend, MemoryBackend, SqliteBackend, backend_from_url
from tests.store.bank import Deposit, Deposited


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///bank.db", "bank.db"),
        ("sqlite:///data/bank.db", "data/bank.db"),
        ("sqlite:////var/lib/bank.db", "/var/lib/bank.db"),
        ("sqlite:///my%20bank%3F.db?synchronous=normal&busy_timeout=1.5", "my bank?.db"),
    ],
)
def test_an_sqlite_url_names_a_file(url: str, path: str) -> None:
    backend = backend_from_url(url)
    assert isinstance(backend, SqliteBackend)
    assert backend.path == path


def test_the_memory_url_names_a_new_store_each_time() -> None:
    one, other = backend_from_url("memory:"), backend_from_url("memory:")
    assert isinstance(one, MemoryBackend)
    assert one is not other


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("bank.db", 'has no scheme; expected one of "memory:", "sqlite:///relative.db", "sqlite:////absolute/path.db"'),
        ("", "has no scheme"),
        ("memory:x", 'write "memory:"'),
        ("sqlite://bank.db", "three slashes begin a relative path, four an absolute one"),
        ("sqlite:bank.db", "three slashes"),
        ("sqlite:///", "names no file"),
        ("sqlite:///data/", "names no file"),
        ("sqlite:///:memory:", 'for a store in memory write "memory:"'),
        ("sqlite:///bank.db?synchronous=off", "synchronous='off' in the store URL; expected one of full, normal, extra"),
        ("sqlite:///bank.db?busy_timeout=soon", "busy_timeout='soon' in the store URL; expected seconds"),
        ("sqlite:///bank.db?cache=shared", "unknown setting 'cache'"),
        ("postgresql://u:secret@host", "names no database"),
        ("postgresql://u:se@secret@host/db", "write special characters of user and password as %XX, for example @ as %40"),
        ("postgresql://u:/secret@host", "write special characters of user and password as %XX"),
        ("mysql://host/db", "cannot begin with 'mysql:'"),
        (7, "a value of type int is no store: "),
        (None, "a value of type NoneType is no store: "),
        (Path("bank.db"), 'Path is no store: expected one of "memory:", "sqlite:///relative.db"'),
        (MemoryBackend, "MemoryBackend is a class: open_store takes a backend, which is an instance"),
    ],
)
def test_a_url_that_names_no_store_is_refused_with_what_was_expected(url: Any, problem: str) -> None:
    with pytest.raises(InvalidStoreUrl) as refusal:
        open_store(url, exporters=[])
    assert problem in str(refusal.value)
    assert "secret" not in str(refusal.value)
    assert isinstance(refusal.value, InvalidInput)
    assert isinstance(refusal.value, ValueError)


def test_a_server_without_its_driver_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventcore.stores.postgres.url.find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"pip install 'eventcore-core\[postgres\]'"):
        open_store("postgresql://u:secret@host/db", exporters=[])


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_a_store_whose_commands_have_no_time_is_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match="expected seconds, more than 0"):
        open_store("memory:", exporters=[], timeout=timeout)


async def test_a_backend_of_ones_own_is_opened_as_it_is() -> None:
    backend = MemoryBackend()
    async with open_store(backend, exporters=[]) as store:
        await store.execute(Deposit(account=StreamId("account-alice"), amount=5))
    async with open_store(_Passing(backend), exporters=[]) as again:
        assert [event.data async for event in again.read_all()] == [Deposited(amount=5)]


def test_a_backend_that_lacks_a_method_is_refused_with_what_it_lacks() -> None:
    class Half:
        system = "half"

        async def open(self) -> None: ...

        async def close(self, timeout: float) -> None: ...

    with pytest.raises(InvalidStoreUrl, match=r"a value of type Half is no store: .* would need log, ledger as well"):
        open_store(Half(), exporters=[])  # type: ignore[arg-type]  # that is what is refused


def test_a_backend_whose_parts_lack_a_method_is_refused_with_what_they_lack() -> None:
    class Partial(MemoryBackend):  # type: ignore[misc]  # final: so that only the parts are another's
        def __init__(self) -> None:
            super().__init__()
            self.log = self.ledger = _Some()  # type: ignore[assignment]  # that is what is refused

    missing = (
        r"log\.append, log\.find_keys, log\.read_streams, .*, log\.follow, log\.wait_beyond, "
        r"ledger\.acquire_lease, ledger\.renew_lease, "
    )
    with pytest.raises(InvalidStoreUrl, match=f"a value of type Partial is no store: .* would need {missing}"):
        open_store(Partial(), exporters=[])


class _Some:
    """A few of the methods of both parts."""

    async def scan(self) -> None: ...

    async def head_position(self) -> None: ...

    async def release_lease(self) -> None: ...


class _Passing:
    """Hands everything through, as one does who looks at the calls of another store."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)
