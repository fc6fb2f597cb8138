"""Nine incidents of a real service, and what its operators see of each: health, log, metrics and traces."""
