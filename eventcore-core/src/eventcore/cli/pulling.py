"""Checks an exporter that is scraped: whether its page shows the test metric, or another process serves its address."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from concurrent.futures import wait
from typing import Final

from eventcore.exporting.delivery.report import ExporterReport
from eventcore.ground import in_background
from eventcore.recording.names import canonical_name

_MAX_PAGE_BYTES: Final = 64 * 1024 * 1024
_MIN_TIMEOUT: Final = 1.0
# Seconds beyond the timeout of a request, so that the request itself says what was wrong.
_GRACE: Final = 0.5


def check_pull(
    exporter: object, metric: str | None, report: ExporterReport, problem: str, deadline: float
) -> tuple[bool, str, str | None]:
    """Check that the exporter serves ``metric`` (``None``: any page), or that another process of eventcore has its address.

    Args:
        exporter: the exporter. It may have the attributes ``url``, the URL of its page (``None`` while it does not listen), and
            ``configured_url``, the URL that its page has according to the settings (``None`` if the settings do not say).
        metric: the name of the test metric.
        report: the result of the flush.
        problem: what the exporter's pipeline reports as its problem; empty for none.
        deadline: when to stop waiting for the page, as ``time.monotonic()``.

    Returns:
        Whether the check succeeded, the finding in words, and the URL that was fetched.
    """
    # On another thread: the attributes are the plugin's code and may hang, and a page may come byte by byte.
    finding = in_background(lambda: _look(exporter, metric, report, problem, deadline), "eventcore-check-page")
    wait([finding], max(deadline - time.monotonic(), _MIN_TIMEOUT) + _GRACE)
    return finding.result() if finding.done() else (False, "its page was not read in time", None)


def _look(
    exporter: object, metric: str | None, report: ExporterReport, problem: str, deadline: float
) -> tuple[bool, str, str | None]:
    if (url := text_attribute(exporter, "url")) is not None:
        page, failure = fetch_page(url, deadline)
        if page is None:
            return False, f"it listens, but {url} cannot be fetched: {failure}", url
        if metric is not None and canonical_name(metric) not in page:
            return False, f"{url} is the page of another process: the test metric is not on it", url
        return True, f"the address was free, and {url} showed the test metric" if metric else f"{url} answers", url
    why = problem or report.reason
    if (url := text_attribute(exporter, "configured_url")) is None or not why:
        if report.delivered:
            return True, "it made its page; it listens nowhere itself", None
        return False, f"not ready to be scraped: {why or 'no reason was given'}", None
    page, _ = fetch_page(url, deadline)
    if page is not None and canonical_name("eventcore.") in page:
        return True, f"{url} already serves metrics of eventcore, from another process", url
    if page is not None:
        return False, f"{url} is served by something that shows no metrics of eventcore: {why}", url
    return False, f"not ready to be scraped: {why}", url


def text_attribute(exporter: object, attribute: str) -> str | None:
    """The URL that an attribute of an exporter holds; ``None`` if there is none. Runs code of the plugin, which may hang."""
    try:
        value = getattr(exporter, attribute, None)
    except BaseException:  # noqa: BLE001  # a property of a plugin may raise anything; the page is then not checked
        return None
    return value if isinstance(value, str) and value.startswith(("http://", "https://")) else None


def fetch_page(url: str, deadline: float) -> tuple[str | None, str]:
    """Fetch a page by ``deadline`` (``time.monotonic``): its text, or ``None`` and why not."""
    # Without a proxy, which could answer in place of the process at this address.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=max(deadline - time.monotonic(), _MIN_TIMEOUT)) as response:
            return response.read(_MAX_PAGE_BYTES).decode("utf-8", "replace"), ""
    except urllib.error.HTTPError as error:
        with error:
            return None, f"HTTP {error.code}: {error.read(300).decode('utf-8', 'replace').strip()}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return None, str(getattr(error, "reason", None) or error) or type(error).__name__
