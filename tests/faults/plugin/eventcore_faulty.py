"""A plugin that misbehaves when it is imported or called, as the arguments of the program say."""

import sys
from typing import Any

from tests.faults.misbehaviours import MISBEHAVIOURS, Surroundings

_hook, _what = sys.argv[1:3]

if _hook == "import":
    MISBEHAVIOURS[_what](Surroundings(None))


class Faulty:
    """An exporter without hooks."""

    def __new__(cls) -> Any:
        """Misbehave in place of making the exporter; what the misbehaviour returns is the exporter."""
        if _hook == "constructor" and (answer := MISBEHAVIOURS[_what](Surroundings(None))) is not None:
            return answer
        return super().__new__(cls)
