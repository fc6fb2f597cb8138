"""Opens a store, with the exporters that the environment names, while it is imported."""

from __future__ import annotations

import asyncio

from eventcore_late import Prompt

from eventcore import open_store


async def _open() -> dict[str, str]:
    async with open_store("memory:") as store:
        return {exporter.name: exporter.state for exporter in store.telemetry.exporters()}


STATES = asyncio.run(_open())


class Exporter(Prompt): ...
