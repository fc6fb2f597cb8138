"""Events, the streams that hold them, and patterns of stream ids."""

from eventcore.events.event import Event, EventMetadata, RawEvent, RecordedEvent, Unknown
from eventcore.events.pattern import StreamPattern
from eventcore.events.stream_id import StreamId

__all__ = ["Event", "EventMetadata", "RawEvent", "RecordedEvent", "StreamId", "StreamPattern", "Unknown"]
