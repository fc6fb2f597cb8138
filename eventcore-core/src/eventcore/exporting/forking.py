"""An exporter around a fork of the process: the fork waits for its hook, and the exporter closes what cannot be inherited."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable

from eventcore.exporting.context import ForkCallback
from eventcore.ground import describe_error


class ForkGuard:
    """Keeps a fork between two hooks of one exporter, and calls what the exporter asked for by ``ExporterContext.on_fork``.

    A call in flight, of gRPC for example, leaves locks locked in the child, and has hung the parent.

    Attributes:
        in_call: held by the worker thread while it calls a hook, and by a thread that forks.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self.in_call = threading.Lock()
        self._logger = logger
        self._before: list[ForkCallback] = []
        self._after_in_child: list[ForkCallback] = []
        # The thread that forks and holds `in_call`. Another thread may fork at the same time.
        self._holder = 0

    def ask(self, before: ForkCallback | None, after_in_child: ForkCallback | None) -> None:
        """Add callbacks; what the exporter calls as ``context.on_fork``."""
        self._before += [before] if before is not None else []
        self._after_in_child += [after_in_child] if after_in_child is not None else []

    def forget_callbacks(self) -> None:
        """The exporter is started once more, and asks again for what it wants."""
        self._before, self._after_in_child = [], []

    def before(self, deadline: float, *, in_hook: bool) -> None:
        """In the parent: wait for the running hook until ``deadline`` (``time.monotonic``), then call the exporter.

        Args:
            deadline: a hook that runs longer is not waited for: the exporter is called beside it.
            in_hook: whether this thread is inside a hook of the exporter, which would wait for itself.
        """
        if not in_hook and self.in_call.acquire(timeout=max(deadline - time.monotonic(), 0.0)):
            self._holder = threading.get_ident()
        self._call(self._before)

    def after_in_parent(self) -> None:
        """In the parent: let hooks be called again."""
        if self._holder == threading.get_ident():
            self._holder = 0
            self.in_call.release()

    def after_in_child(self) -> None:
        """In the child: let the exporter close what it has inherited and must not use."""
        self._call(self._after_in_child)

    def _call(self, callbacks: Iterable[ForkCallback]) -> None:
        for callback in callbacks:
            try:
                callback()
            except BaseException as error:  # noqa: BLE001  # what a plugin raises must not stop the fork, or the other plugins
                self._logger.warning("a callback around a fork raised %s", describe_error(error))
