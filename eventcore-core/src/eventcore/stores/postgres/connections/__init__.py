"""Connections to a PostgreSQL server: opened when needed, used by one call at a time, ended when their state is unknown.

**How many.** The store never has more than ``PostgresSettings.limit`` connections on the server. A connection counts from the
attempt to open it until the server has ended its side of it: a call that timed out leaves a statement running there, which
waits perhaps for a lock. So such a connection is *ended* in a task of its own: the server is asked to cancel the statement,
and its answer is awaited. If none comes, the session is terminated by its number, over another connection. An attempt to
connect that its call has given up goes on for a while, since only a connection that exists can be ended.

``places`` counts them, ``ending`` ends them, ``connecting`` opens them, ``pool`` lends them to calls, and ``connections`` holds
all of these for one store.
"""

from eventcore.stores.postgres.connections.connections import Connections as Connections
from eventcore.stores.postgres.connections.pool import Pool as Pool
from eventcore.stores.postgres.connections.pool import one_try as one_try
