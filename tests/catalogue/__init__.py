"""The catalogue against a contract that is written by hand, and the documentation that is generated from it."""
