"""Scrapes the metrics of the replay over HTTP, as Prometheus would."""

import urllib.error
import urllib.request
from collections import Counter
from typing import Final

import msgspec
from prometheus_client.parser import text_string_to_metric_families

__all__ = ["Page", "ScrapeFailed", "scrape"]

_TIMEOUT: Final = 10.0


class ScrapeFailed(Exception):
    """The page could not be read; the message says why."""


class Page(msgspec.Struct, frozen=True):
    """A scraped page: every sample with its name, labels and value."""

    samples: list[tuple[str, dict[str, str], float]]

    @property
    def series(self) -> int:
        """The number of series."""
        return len(self.samples)

    def by(self, name: str, *labels: str) -> Counter[tuple[str, ...]]:
        """The sums of the samples named ``name``, by the values of ``labels``."""
        parts: Counter[tuple[str, ...]] = Counter()
        for sample, known, value in self.samples:
            if sample == name:
                parts[tuple(known[label] for label in labels)] += int(value)
        return parts


def scrape(url: str) -> Page:
    """Fetch and parse the page. It blocks, so call it in a thread.

    Raises:
        ScrapeFailed: there is no answer, or one without metrics.
    """
    # Ignore the proxy of the environment: it cannot reach the loopback address of this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_TIMEOUT) as response:
            text = response.read().decode()
        families = list(text_string_to_metric_families(text))
    except urllib.error.HTTPError as error:
        raise ScrapeFailed(f"{url} answers {error.code}: {error.read(500).decode(errors='replace').strip()}") from error
    except (OSError, ValueError) as error:
        raise ScrapeFailed(f"{url}: {error}") from error
    return Page([(sample.name, dict(sample.labels), sample.value) for family in families for sample in family.samples])
