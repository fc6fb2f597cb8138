"""The page for a person, in a browser that may reach no host but the process itself."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import pytest

from eventcore import EventStore, Telemetry, open_store
from eventcore.health import HealthListener
from tests.health.conftest import QUICK, get
from tests.projections.models import Seen
from tests.store.bank import Deposit, Transfer, account

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

pytestmark = [pytest.mark.once, pytest.mark.timeout(60)]

# As Debian builds it; without a sandbox, since root may run the tests.
_ARGUMENTS: Final = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_SCHEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")
_SIZES: Final = {"phone": {"width": 390, "height": 844}, "desktop": {"width": 1280, "height": 900}}


@asynccontextmanager
async def _browser(chromium: Path) -> AsyncIterator[Browser]:
    playwright = pytest.importorskip("playwright.async_api")
    async with playwright.async_playwright() as started:
        browser = await started.chromium.launch(executable_path=chromium, args=list(_ARGUMENTS))
        yield browser
        await browser.close()


@asynccontextmanager
async def _working_store(telemetry: Telemetry) -> AsyncIterator[EventStore]:
    """A store with commands, a rejection, a projection that works, and one that has failed."""
    async with open_store("memory:", telemetry=telemetry, name="bank", health=QUICK) as store:

        class Failing(Seen):
            name = "statements"

            def __init__(self) -> None:
                super().__init__()
                self.poison.add(1)

        async def work() -> None:
            while True:
                await store.execute(Deposit(account=account("a")))
                with suppress(Exception):
                    await store.execute(Transfer(source=account("b"), target=account("a"), amount=10**9))
                await asyncio.sleep(0.01)

        tasks = [asyncio.create_task(each) for each in (work(), store.run(Seen()), store.run(Failing()))]
        try:
            yield store
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _open(browser: Browser, url: str, requested: list[str], problems: list[str], **options: Any) -> Page:
    page = await (await browser.new_context(**options)).new_page()
    page.on("request", lambda request: requested.append(request.url))
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    await page.goto(url)
    await page.wait_for_function("() => / 1 of statements|statements/.test(document.body.innerText)")
    return page


async def test_the_page_shows_what_the_process_does_live_on_phone_and_desktop_by_day_and_night(
    telemetry: Telemetry, chromium: Path
) -> None:
    # To look at: EVENTCORE_PICTURES=FOLDER
    pictures = os.environ.get("EVENTCORE_PICTURES")
    requested: list[str] = []
    problems: list[str] = []
    async with _browser(chromium) as browser, _working_store(telemetry) as store:
        listener = HealthListener(store, port=0)
        page = await _open(browser, f"{listener.url}/", requested, problems, viewport=_SIZES["desktop"])
        # The second answer gives rates.
        await page.wait_for_function("() => /^[1-9]/.test(document.getElementById('rate').textContent)")
        text = await page.inner_text("body")
        for shown in ("bank", "degraded", "ready", "projection:statements", "ProjectionFailed", "Deposit", "Transfer", "seen"):
            assert shown in text
        assert re.search(r"µs|ms", await page.inner_text("#p95"))
        assert await page.title() == "! bank – eventcore"
        # It is live: the counts grow without a reload.
        before = await page.inner_text("#rate-note")
        await page.wait_for_function(f"() => document.getElementById('rate-note').textContent !== {before!r}")

        backgrounds = set()
        for name, size in _SIZES.items():
            for scheme in _SCHEMES:
                await page.set_viewport_size(size)  # type: ignore[arg-type]  # a dictionary of two numbers
                await page.emulate_media(color_scheme=scheme)
                wide = await page.evaluate("() => [document.documentElement.scrollWidth, window.innerWidth]")
                assert wide[0] <= wide[1], f"the page is wider than a {name}"
                assert await page.evaluate(_CUT_OFF) == [], name
                backgrounds.add(await page.evaluate("() => getComputedStyle(document.body).backgroundColor"))
                if pictures:
                    await page.screenshot(path=Path(pictures) / f"{name}-{scheme}.png", full_page=True)
        assert len(backgrounds) == 2
        # No faint text: WCAG asks for a contrast of 4.5.
        for scheme in _SCHEMES:
            await page.emulate_media(color_scheme=scheme)
            assert await page.evaluate(_FAINT) == []

        assert problems == []
        listener.close()
        await page.wait_for_selector("#lost", state="visible")
        assert "No figures" in await page.inner_text("#lost")
    assert {url.split("/")[2] for url in requested if not url.startswith("data:")} == {listener.url.split("/")[2]}


# Tables that are wider than their place, so that one must scroll to see all columns.
_CUT_OFF: Final = """() => [...document.querySelectorAll('.scroll')].filter((each) => each.scrollWidth > each.clientWidth)
  .map((each) => each.id)"""

# The texts whose colour is too near to that of what is behind them.
_FAINT: Final = """() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((each) => {
      const part = each / 255;
      return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      if (!/rgba\\(.*, 0\\)|transparent/.test(colour)) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const faint = [];
  for (const element of document.querySelectorAll('h1, h2, span, td, th, div.value, div.note, footer')) {
    if (!element.innerText || !element.offsetParent) continue;
    const pair = [light(getComputedStyle(element).color), light(behind(element))].sort((a, b) => b - a);
    const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (contrast < 4.5) faint.push(element.innerText + ': ' + contrast.toFixed(1));
  }
  return faint;
}"""


async def test_the_page_may_load_nothing_but_its_own_figures(store: EventStore) -> None:
    page = await get(store, "/")
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"""(?:src|href)=["'](?!data:)|@import|url\((?!data:)""", page.text)
    assert "//" not in re.sub(r"http://www\.w3\.org/2000/svg|// .*|\\/\\?", "", page.text)


async def test_the_figures_of_the_page_are_those_of_this_store_only(telemetry: Telemetry) -> None:
    async with (
        open_store("memory:", telemetry=telemetry, name="one", health=QUICK) as one,
        open_store("memory:", telemetry=telemetry, name="two", health=QUICK) as two,
    ):
        for _ in range(3):
            await one.execute(Deposit(account=account("a")))
        await two.execute(Deposit(account=account("a")))
        data = (await get(one, "/data.json")).json
        [command] = data["commands"]
        assert (command["type"], command["outcomes"], command["count"]) == ("Deposit", {"committed": 3}, 3)
        assert data["events_written"] == 3
        assert data["health"]["store"] == "one"
        assert data["append"]["count"] == 3
        assert data["pool"] == {"limit": None}
