"""The attributes by which an exporter says how it wants to be driven, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast, get_args

import msgspec

from eventcore.exporting.context import Signal, Temporality
from eventcore.exporting.delivery.settings import PipelineSettings
from eventcore.ground import text_of, type_name

_SIGNALS: Final[tuple[Signal, ...]] = get_args(Signal)
_TEMPORALITIES: Final[tuple[Temporality, ...]] = get_args(Temporality)


def attribute_problems(exporter: object) -> Iterator[str]:
    """What is wrong with the attributes ``signals``, ``temporality`` and ``pipeline_defaults``; each is optional."""
    name = type_name(type(exporter))
    signals: object = getattr(exporter, "signals", _SIGNALS)
    given = cast("tuple[object, ...]", tuple(signals)) if isinstance(signals, tuple | list | set | frozenset) else ()
    if not given or any(signal not in _SIGNALS for signal in given):
        yield f"{name}.signals is {_shown(signals)}; expected a tuple of one or both of {', '.join(map(repr, _SIGNALS))}"
    temporality: object = getattr(exporter, "temporality", _TEMPORALITIES[0])
    if not (isinstance(temporality, str) and temporality in _TEMPORALITIES):
        yield f"{name}.temporality is {_shown(temporality)}; expected {' or '.join(map(repr, _TEMPORALITIES))}"
    defaults: object = getattr(exporter, "pipeline_defaults", {})
    if not isinstance(defaults, Mapping):
        yield f"{name}.pipeline_defaults is {_shown(defaults)}; expected a mapping from keys of the pipeline's table to values"
        return
    try:
        msgspec.convert(dict(cast("Mapping[Any, Any]", defaults)), PipelineSettings)
    except (msgspec.ValidationError, TypeError) as error:
        yield f"{name}.pipeline_defaults: {text_of(error)}; expected values for keys of the pipeline's table"


def _shown(value: object) -> str:
    return text_of(repr(value), 80)
