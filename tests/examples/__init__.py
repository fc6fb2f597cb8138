"""The exporters in ``examples``, distributions of their own: ``run.py authors`` builds and installs them for these tests."""
