"""The spans that wrote the events of a batch: to be linked, never joined, so that no trace grows without bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from eventcore.events.codec import StoredEvent
from eventcore.recording import TraceContext

_MAX_LINKS: Final = 64


class _Origin(msgspec.Struct):
    traceparent: str = ""
    tracestate: str = ""


_decode: Final = msgspec.json.Decoder(_Origin).decode


def writers(rows: Sequence[StoredEvent]) -> list[TraceContext]:
    """At most 64 different spans, in order; what is malformed is left out."""
    found: dict[str, TraceContext] = {}
    # The events of one command have the same metadata, letter for letter.
    for metadata in dict.fromkeys([row.metadata for row in rows]):
        try:
            origin = _decode(metadata)
        except (msgspec.MsgspecError, UnicodeError):
            continue
        if not origin.traceparent or origin.traceparent in found:
            continue
        if (context := TraceContext.from_traceparent(origin.traceparent, origin.tracestate)) is not None:
            found[origin.traceparent] = context
            if len(found) == _MAX_LINKS:
                break
    return list(found.values())
