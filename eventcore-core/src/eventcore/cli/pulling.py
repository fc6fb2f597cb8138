"""Checking an exporter that is scraped: does its address show what was recorded, or is somebody else there?"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from typing import Final, Protocol, runtime_checkable

from eventcore.exporting.delivery.report import ExporterReport
from eventcore.recording.names import canonical_name

_MOST_BYTES: Final = 64 * 1024 * 1024
_LEAST_SECONDS: Final = 1.0


@runtime_checkable
class Scraped(Protocol):
    """What a pull exporter may offer so that ``eventcore check`` can look at its page. Both may be left out."""

    @property
    def url(self) -> str | None:
        """Where its metrics can be fetched now; ``None`` while it listens nowhere."""
        ...

    @property
    def configured_url(self) -> str | None:
        """Where its metrics would be, by its settings alone; ``None`` when they do not say it."""
        ...


def check_pull(
    exporter: object, metric: str | None, report: ExporterReport, problem: str, deadline: float
) -> tuple[bool, str, str | None]:
    """Whether the exporter serves ``metric`` (``None``: anything), or another process of eventcore does so at its address.

    Returns whether all is well, what was found, and the URL that was looked at.
    """
    if (url := _text(exporter, "url")) is not None:
        page, failure = _fetch(url, deadline)
        if page is None:
            return False, f"it listens, but {url} cannot be fetched: {failure}", url
        if metric is not None and canonical_name(metric) not in page:
            return False, f"{url} is another's page: the test metric is not on it", url
        return True, f"the address was free, and {url} showed the test metric" if metric else f"{url} answers", url
    why = problem or report.reason
    if (url := _text(exporter, "configured_url")) is None or not why:
        if report.delivered:
            return True, "it made its page; it listens nowhere itself", None
        return False, f"not ready to be scraped: {why or 'no reason was given'}", None
    page, _ = _fetch(url, deadline)
    if page is not None and canonical_name("eventcore.") in page:
        return True, f"{url} already serves metrics of eventcore, from another process", url
    if page is not None:
        return False, f"{url} is served by something that shows no metrics of eventcore: {why}", url
    return False, f"not ready to be scraped: {why}", url


def _text(exporter: object, attribute: str) -> str | None:
    try:
        value = getattr(exporter, attribute, None)
    except Exception:  # noqa: BLE001  # a property of a plugin may raise anything, and is only a courtesy
        return None
    return value if isinstance(value, str) and value.startswith(("http://", "https://")) else None


def _fetch(url: str, deadline: float) -> tuple[str | None, str]:
    # Never through a proxy: the question is what is at this address.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=max(deadline - time.monotonic(), _LEAST_SECONDS)) as response:
            return response.read(_MOST_BYTES).decode("utf-8", "replace"), ""
    except urllib.error.HTTPError as error:
        with error:
            return None, f"HTTP {error.code}: {error.read(300).decode('utf-8', 'replace').strip()}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return None, str(getattr(error, "reason", None) or error) or type(error).__name__
