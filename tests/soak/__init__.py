"""The soak test: processes that write, read and project while they, the server and their connections are killed and cut.

``python -m tests.soak --seconds 120`` runs it. Every process keeps its own log of what it was told, and what it saw; at the
end those logs are held against the database. The parts are:

- ``domain``: the commands, whose events carry the proof that they were decided on what really stood.
- ``writer``, ``reader``, ``projector``: what the processes do; ``worker`` is their way in.
- ``crew``, ``chaos``: who runs, and what befalls them.
- ``scenarios``: PostgreSQL, a failover to a standby that lags, SQLite.
- ``proof``: what must hold, as functions of the rows and the logs. It uses nothing of eventcore.
"""
