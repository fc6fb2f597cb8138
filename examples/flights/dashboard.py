"""The display while the replay runs: live tables on a terminal, otherwise a line every two seconds.

Every number comes from eventcore: from a collection, as exporters get it, and from the state of the exporters.
"""

import asyncio
import time
from collections import deque
from datetime import datetime
from typing import Final

from rich.console import Console
from rich.live import Live

from eventcore import Telemetry
from examples.flights.readings import Readings
from examples.flights.replay import Replay
from examples.flights.tables import Frame, status_line, tables

__all__ = ["watch"]

_TABLE_PERIOD: Final = 0.5
_LINE_PERIOD: Final = 2.0
# Seconds over which rates and latencies are computed.
_WINDOW: Final = 60.0


async def watch(telemetry: Telemetry, replay: Replay, console: Console, done: asyncio.Event) -> None:
    """Show the progress of ``replay`` until ``done`` is set. Collecting and drawing run in a thread."""
    begun = time.monotonic()
    history = deque([(begun, Readings(await asyncio.to_thread(telemetry.collect)))])

    def look(clock: datetime | None) -> Frame:
        readings = Readings(telemetry.collect())
        now = time.monotonic()
        history.append((now, readings))
        while now - history[0][0] > _WINDOW:
            history.popleft()
        since, earlier = history[0]
        failed = telemetry.failed_exporters
        names = {exporter.name for exporter in failed}
        exporters = [exporter for exporter in telemetry.exporters() if exporter.name not in names]
        return Frame(now - begun, clock, readings, earlier, now - since, exporters, failed)

    if not console.is_terminal:
        while not await _wait(done, _LINE_PERIOD):
            frame = await asyncio.to_thread(look, replay.clock)
            console.print(status_line(frame), markup=False, highlight=False, soft_wrap=True)
        return

    with Live(console=console, auto_refresh=False) as live:

        def draw(clock: datetime | None) -> None:
            live.update(tables(look(clock)), refresh=True)

        while not await _wait(done, _TABLE_PERIOD):
            await asyncio.to_thread(draw, replay.clock)
        await asyncio.to_thread(draw, replay.clock)


async def _wait(done: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await done.wait()
    except TimeoutError:
        return False
