"""``eventcore migrate``: create the schema of a store, or bring it up to date, apart from the application."""

from __future__ import annotations

import asyncio
from typing import final

import msgspec

from eventcore.cli.output import Output
from eventcore.errors import InvalidStoreUrl, StoreError
from eventcore.stores import SCHEMA_VERSION, backend_from_url


@final
class MigrationResult(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``eventcore migrate --json``."""

    version: int = 1
    ok: bool
    schema_version: int | None = None
    message: str


def migrate(output: Output, *, url: str, timeout: float) -> int:
    """Open and close the store, which brings it up to date; print what came of it and return the exit code."""
    code = 0
    try:
        asyncio.run(_open_and_close(url, timeout))
    except TimeoutError:
        result, code = MigrationResult(ok=False, message=f"not done within {timeout:g} s"), 1
    except InvalidStoreUrl as error:
        result, code = MigrationResult(ok=False, message=str(error)), 2
    except StoreError as error:
        result, code = MigrationResult(ok=False, message=str(error)), 1
    else:
        message = f"The schema of the store has version {SCHEMA_VERSION}, which this eventcore needs."
        result = MigrationResult(ok=True, schema_version=SCHEMA_VERSION, message=message)
    if output.as_json:
        output.object(result)
    else:
        output.line(result.message)
    return code


async def _open_and_close(url: str, timeout: float) -> None:
    backend = backend_from_url(url)
    async with asyncio.timeout(timeout):
        await backend.open()
    await backend.close(timeout)
