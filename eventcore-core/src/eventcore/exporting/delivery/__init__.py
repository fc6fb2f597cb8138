"""Delivery: one pipeline for each exporter, and what a pipeline is made of."""
