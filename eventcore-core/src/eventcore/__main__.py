"""``python -m eventcore`` runs the command ``eventcore``."""

import sys

from eventcore.cli import main

if __name__ == "__main__":
    sys.exit(main())
