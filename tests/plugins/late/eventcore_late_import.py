"""Its import takes until the file that LATE_GATE names exists."""

from __future__ import annotations

from eventcore_late import Prompt, wait_for_the_gate

wait_for_the_gate()


class Late(Prompt):
    def __init__(self, port: int = 1) -> None:
        super().__init__()
        self.port = port
