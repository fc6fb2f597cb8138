"""The tests of the three distributions."""
