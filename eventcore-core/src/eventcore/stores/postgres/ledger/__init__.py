"""The projection ledger of a PostgreSQL store, and the transaction that handlers get."""

from eventcore.stores.postgres.ledger.ledger import PostgresLedger

__all__ = ["PostgresLedger"]
