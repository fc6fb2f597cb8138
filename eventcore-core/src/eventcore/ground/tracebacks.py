"""Tracebacks of exceptions that are raised more than once."""

from __future__ import annotations


def forget_earlier_raises(error: BaseException) -> None:
    """Cut what earlier raises of the same object have left in its traceback. Call it in an ``except`` block.

    Python puts each raise in front of the traceback that an exception has. An application may raise one object for ever, a
    constant for instance: its traceback would grow with each raise, and keep all frames and their variables alive.
    """
    newest = error.__traceback__
    if newest is None:
        return
    # The traceback begins in the function that catches. Where that function comes again, an earlier raise begins.
    catcher, last = newest.tb_frame.f_code, newest
    while (entry := last.tb_next) is not None:
        if entry.tb_frame.f_code is catcher:
            last.tb_next = None
            return
        last = entry
