"""Uses what only a later eventcore-core has."""

from eventcore.exporting import something_of_the_future  # type: ignore[attr-defined]  # that it is missing is the point

Exporter = something_of_the_future
