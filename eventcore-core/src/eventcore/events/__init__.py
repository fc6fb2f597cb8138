"""Events, the streams that hold them, and patterns of stream ids."""

from eventcore.events.classes import Unknown
from eventcore.events.event import Event, EventMetadata, RawEvent, RecordedEvent
from eventcore.events.pattern import StreamPattern
from eventcore.events.stream_id import StreamId
from eventcore.events.stream_state import StreamState

__all__ = ["Event", "EventMetadata", "RawEvent", "RecordedEvent", "StreamId", "StreamPattern", "StreamState", "Unknown"]
