"""The soak test: processes write, read and project while processes, servers and connections are killed.

``python -m tests.soak --seconds 120`` runs it. Every process writes a log of the results that it got
from the store and of the events that it saw. At the end the logs are compared with the database.

- ``domain``: the commands. Each event records the state that its command was decided on.
- ``writer``, ``reader``, ``projector``: what the processes do. ``worker`` starts them.
- ``crew``: the running processes. ``chaos``: the faults that are injected.
- ``scenarios``: PostgreSQL, a failover to a standby that lags, SQLite; and ``takeovers``, which measures how long successors
  take when leaders are stopped, killed or cut off from the network (``networks``).
- ``proof``: what must hold, as functions of the rows and the logs. It uses nothing of eventcore.
"""
