"""Pictures of what operators see: dashboards and health page of a running stack, and the demo.

``python -m tests.stack pictures`` makes them. The README shows those in ``docs/pictures``.
"""

from __future__ import annotations

import asyncio
import io
import re
import time
from pathlib import Path
from typing import Final
from unittest.mock import patch

from rich.console import Console, Group, RenderableType

from examples.flights import dashboard
from examples.flights.run import Options, run
from examples.flights.tables import Frame, tables
from examples.observability.pictures import draw_all
from tests.real_parts.finding import find_part
from tests.stack.native import Stack

_BROWSER: Final = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
_RATE: Final = re.compile(r"Commands\s+[\d.,]+\s*/s")
_WIDTH: Final = 118
# rich's pictures load a font from the network; the fonts of the reader do as well.
_FONTS: Final = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


async def picture_page(url: str, file: Path) -> None:
    """Photograph the page at ``url`` with Chromium, as a laptop shows it."""
    from playwright.async_api import async_playwright

    async with async_playwright() as started:
        browser = await started.chromium.launch(executable_path=str(find_part("chromium")), args=list(_BROWSER))
        try:
            page = await browser.new_page(viewport={"width": 1100, "height": 720})
            await page.goto(url)
            # Rates need two readings. The page allows no script but its own, so this cannot wait inside of it.
            async with asyncio.timeout(60):
                while not _RATE.search(await page.inner_text("body")):
                    await asyncio.sleep(0.5)
            await page.screenshot(path=str(file), full_page=True)
        finally:
            await browser.close()


async def picture_demo(seconds: float) -> str:
    """Run the demo, and draw its last table and its summary, as SVG."""
    frames: list[RenderableType] = []

    def keep(frame: Frame) -> RenderableType:
        frames[:] = [tables(frame)]
        return frames[0]

    with patch.object(dashboard, "tables", keep):
        shown = Console(file=io.StringIO(), force_terminal=True, width=_WIDTH)
        summary = await run(Options(seconds=seconds), shown)
    recorded = Console(file=io.StringIO(), record=True, width=_WIDTH)
    recorded.print(Group(*frames))
    summary.print(recorded)
    return _FONTS.sub("", recorded.export_svg(title="python3 run.py demo"))


def picture(stack: Stack, seconds: float, into: Path) -> list[str]:
    """Let the stack run for some seconds, draw its dashboards and its page, and return the panels that have no data."""
    into.mkdir(parents=True, exist_ok=True)
    time.sleep(seconds)
    empty = draw_all(stack.url("prometheus"), seconds, "5s", into)
    asyncio.run(picture_page(f"{stack.service}/health/", into / "health.png"))
    return empty
