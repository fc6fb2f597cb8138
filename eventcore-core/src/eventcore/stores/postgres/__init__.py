"""The store on a PostgreSQL server. Import ``backend`` only where such a store is opened: it needs asyncpg."""
