"""The one hardened HTTP listener: exporters that are scraped use it, and so do health endpoints.

It runs on threads of its own, so it answers also while the event loop is blocked. It has limits on
time, size and the number of connections, and TLS, basic authentication and bearer tokens. A plugin
may import this module. It knows nothing of telemetry or event stores.
"""

from eventcore.serving.access import Access
from eventcore.serving.connection import Limits
from eventcore.serving.listener import Listener
from eventcore.serving.messages import Headers, Request, Response, plain
from eventcore.serving.passwords import hash_password

__all__ = ["Access", "Headers", "Limits", "Listener", "Request", "Response", "hash_password", "plain"]
