"""``eventcore migrate``: creates the schema of a store, or brings it up to date."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any, Final, final

import msgspec

from eventcore.cli.output import Output
from eventcore.cli.parsing import add_command, add_timeout
from eventcore.errors import InvalidStoreUrl, MissingDependency, StoreError
from eventcore.stores import SCHEMA_VERSION, backend_from_url

_EPILOG: Final = """\
exit codes:
  0  the schema has the version that this eventcore needs
  1  the store cannot be migrated, or did not answer in time
  2  the URL or the command line is wrong, or a package is missing
"""


@final
class MigrationResult(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``eventcore migrate --json``."""

    schema_version: int
    message: str


def add_migrate(commands: Any) -> None:
    """Add the command to the parsers of ``eventcore``."""
    summary = "create the schema of a store, or bring it up to date"
    parser = add_command(commands, "migrate", _migrate, summary, _EPILOG)
    parser.add_argument("url", metavar="URL", help="the URL of the store, as for open_store")
    add_timeout(parser)


def _migrate(output: Output, options: argparse.Namespace) -> int:
    """Create the schema of the store that URL names, or bring it up to date. Several processes may do this at the same time.
    An application does the same when it opens the store, except with open_store(..., migrate=False). The password for
    PostgreSQL may be in the variable PGPASSWORD or in the password file instead of the URL.

    JSON (--json):
      {"version": 1, "ok", "error", "schema_version": int, "message": text}
    """
    try:
        asyncio.run(_open_and_close(options.url, options.timeout))
    except TimeoutError:
        return output.fail(1, f"not done within {options.timeout:g} s")
    except (InvalidStoreUrl, MissingDependency) as error:
        return output.fail(2, str(error))
    except StoreError as error:
        return output.fail(1, str(error))
    message = f"The schema of the store has version {SCHEMA_VERSION}, which this eventcore needs."
    return output.answer(0, MigrationResult(schema_version=SCHEMA_VERSION, message=message), lambda: output.line(message))


async def _open_and_close(url: str, timeout: float) -> None:
    """Opening a backend migrates its store."""
    backend = backend_from_url(url)
    async with asyncio.timeout(timeout):
        await backend.open()
    await backend.close(timeout)
