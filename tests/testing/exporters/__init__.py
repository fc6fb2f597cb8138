"""Tests of the kit for exporters."""
