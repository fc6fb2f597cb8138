"""Behaviour of the event store."""
