"""From the sources of configuration (file, code, environment) to checked exporters."""
