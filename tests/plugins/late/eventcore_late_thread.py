"""Opens a store in another thread while it is imported, and waits for that thread."""

from __future__ import annotations

import asyncio
import threading

from eventcore_late import Prompt

from eventcore import open_store


async def _open() -> None:
    async with open_store("memory:"):
        pass


_thread = threading.Thread(target=asyncio.run, args=(_open(),))
_thread.start()
_thread.join()


class Exporter(Prompt): ...
