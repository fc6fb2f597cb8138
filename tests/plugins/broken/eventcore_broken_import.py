"""Cannot be imported: something that it needs is not installed."""

import a_library_that_nobody_has  # type: ignore[import-not-found]  # that it is missing is the point

Exporter = a_library_that_nobody_has.Exporter
