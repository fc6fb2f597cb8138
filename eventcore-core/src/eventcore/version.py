"""The version of eventcore-core, also read when the distribution is built."""

from typing import Final

__all__ = ["__version__"]

__version__: Final = "0.1.0"
