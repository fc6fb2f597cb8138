"""Another tracing system's current span: what an exporter's ``ambient_context`` returned, guarded.

Its functions are a plugin's code on the hot path of the application. Whatever they return or
raise never reaches the application: the answer is ignored, the function is not called again, and the
exporter shows why.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from types import CoroutineType
from typing import Any, Final, cast, final

from eventcore.ground import describe_error, log_safely, text_of, type_name
from eventcore.recording.trace_context import TraceContext

_COROUTINE: Final[type[Any]] = CoroutineType
_EXPECTED: Final = "expected an object with current(), attach(context, own_io) and detach(token), or a callable"


@final
class GuardedAmbient:
    """The ambient context of one exporter. Every method may be called from any thread, and none raises.

    Args:
        answer: what ``ambient_context`` returned.
        logger: the exporter's logger.

    Attributes:
        problem: what was wrong with the last answer that was ignored; empty when nothing was.
        attaches: whether ``attach`` makes a span current in the other system.
        may_be_unused: whether ``in_use`` asks the other system. If not, its answer is known, and the call is spared.
    """

    __slots__ = ("_attach", "_current", "_detach", "_in_use", "_logger", "attaches", "may_be_unused", "problem")

    def __init__(self, answer: object, logger: logging.Logger) -> None:
        self._logger = logger
        self.problem = ""
        self._current: Callable[[], object] | None = None
        self._attach: Callable[..., object] | None = None
        self._detach: Callable[[Any], object] | None = None
        self._in_use: Callable[[], object] | None = None
        self.attaches = self.may_be_unused = False
        try:
            self._adopt(answer)
        except BaseException as error:  # noqa: BLE001  # an attribute of the plugin's object may raise anything
            self.ignore("ambient_context", f"cannot be examined: {describe_error(error)}")

    def current(self) -> TraceContext | None:
        """The span that is current in the other system; ``None`` when there is none."""
        if (ask := self._current) is None:
            return None
        try:
            found = ask()
            if found is None:
                return None
            # `TraceContext` is final. A plugin's object would pass `isinstance` by a `__class__` of its own.
            if type(found) is TraceContext:
                return found if found.trace_id and found.span_id and type(found.tracestate) is str else None
            problem = f"returned {_shown(found)}; expected a TraceContext or None"
        except BaseException as error:  # noqa: BLE001  # a command must not fail by it
            problem = f"raised {describe_error(error)}"
        self._current = None
        self.ignore("current()", problem)
        return None

    def in_use(self) -> bool:
        """Whether ``attach`` is worth its call; true where the other system does not say."""
        if (ask := self._in_use) is None:
            return self._attach is not None
        try:
            answer = ask()
            if answer is True or answer is False:
                return answer
            problem = f"returned {_shown(answer)}; expected a bool"
        except BaseException as error:  # noqa: BLE001  # as above
            problem = f"raised {describe_error(error)}"
        self._in_use, self.may_be_unused = None, False
        self.ignore("in_use()", problem)
        return self._attach is not None

    def attach(self, context: TraceContext, own_io: bool) -> object:
        """Make a span current in the other system. Returns what ``detach`` needs; ``None``: there is nothing to undo."""
        if (attach := self._attach) is None:
            return None
        try:
            token = attach(context, own_io)
            # Here and not in a function: each command attaches several times.
            if type(token) is not _COROUTINE:
                return token
            problem = f"returned {_shown(token)}; expected a token"
        except BaseException as error:  # noqa: BLE001  # as above
            problem = f"raised {describe_error(error)}"
        self._forget_attaching()
        self.ignore("attach()", problem)
        return None

    def detach(self, token: object) -> None:
        """Undo an ``attach``, in the same task or thread."""
        if token is None or (detach := self._detach) is None:
            return
        try:
            answer = detach(token)
            if type(answer) is not _COROUTINE:
                return
            problem = f"returned {_shown(answer)}; expected None"
        except BaseException as error:  # noqa: BLE001  # as above
            problem = f"raised {describe_error(error)}"
        # What cannot be undone must not be done again. Contexts that are attached now are still detached.
        self._forget_attaching()
        self.ignore("detach()", problem)

    def _forget_attaching(self) -> None:
        self._attach, self._in_use = None, None
        self.attaches = self.may_be_unused = False

    def _adopt(self, answer: object) -> None:
        if answer is None:
            return
        if _is_coroutine(answer):
            self.ignore("ambient_context", f"returned {_shown(answer)}; {_EXPECTED}")
            return
        current: object = getattr(answer, "current", None)
        attach, detach = getattr(answer, "attach", None), getattr(answer, "detach", None)
        if current is None and attach is None and detach is None:
            current = answer
        in_use = getattr(answer, "in_use", None)
        functions = [each for each in (current, attach, detach, in_use) if each is not None]
        wrong = next((each for each in functions if not callable(each) or inspect.iscoroutinefunction(each)), None)
        if wrong is not None or (attach is None) != (detach is None):
            self.ignore("ambient_context", f"returned {_shown(answer)}; {_EXPECTED}, none of them 'async def'")
            return
        self._current = current if callable(current) else None
        self._attach, self._detach, self._in_use = attach, detach, in_use
        self.attaches = attach is not None
        self.may_be_unused = in_use is not None

    def ignore(self, what: str, problem: str) -> None:
        """Note that an answer is ignored, and log the first one."""
        first, self.problem = not self.problem, f"{what} {problem}"
        if first:
            log_safely(self._logger, logging.WARNING, f"its ambient context is ignored: {self.problem}")


def _shown(answer: object) -> str:
    if _is_coroutine(answer):
        cast("CoroutineType[Any, Any, Any]", answer).close()
        return "a coroutine"
    try:
        return text_of(repr(answer), 80)
    except BaseException:  # noqa: BLE001  # a plugin's object
        return f"a {type_name(type(answer))}"


def _is_coroutine(answer: object) -> bool:
    # Not `isinstance`, which asks the answer for its `__class__`: that may be a plugin's property.
    return type(answer) is CoroutineType
