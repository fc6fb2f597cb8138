"""Spans, and the ring that holds them when they have ended."""

from eventcore.recording.spans.ring import SpanRing, _current
from eventcore.recording.spans.span import _LONGEST_NAME, Entered, Span, span_class

__all__ = ["_LONGEST_NAME", "Entered", "Span", "SpanRing", "_current", "span_class"]
