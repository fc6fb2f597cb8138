"""A web service on eventcore: FastAPI and PostgreSQL, with health, error mapping, a projection, workers and draining."""
