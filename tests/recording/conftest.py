"""A tracer that records every trace, and a registry with a small cap."""

from __future__ import annotations

import pytest

from eventcore.recording import (
    IdGenerator,
    InstrumentRegistry,
    RateSampler,
    Tracer,
)


@pytest.fixture
def tracer() -> Tracer:
    tracer = Tracer(RateSampler("all"), IdGenerator())
    tracer.wanted = True
    return tracer


@pytest.fixture
def registry() -> InstrumentRegistry:
    return InstrumentRegistry(series_limit=3)
