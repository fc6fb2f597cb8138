"""Trace contexts: their headers, ids and equality, and what is no identity."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventcore.errors import InvalidInput
from eventcore.recording import IdGenerator, TraceContext, Tracer
from tests.recording.spans import ended


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 255))
def test_a_traceparent_can_be_read_back(trace_id: int, span_id: int, flags: int) -> None:
    context = TraceContext(trace_id, span_id, flags)
    assert TraceContext.from_traceparent(context.traceparent) == context


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "00-" + "٣" * 32 + "-00f067aa0ba902b7-01",
        "x" * 10_000,
    ],
)
def test_a_malformed_traceparent_is_ignored(header: str) -> None:
    assert TraceContext.from_traceparent(header) is None


def test_a_future_version_of_traceparent_is_read_as_far_as_it_is_known() -> None:
    context = TraceContext.from_traceparent("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", "k=v\x00")
    assert context is not None
    assert context.sampled
    assert context.tracestate == ""


@given(st.text(max_size=80))
def test_no_text_makes_reading_a_traceparent_raise(text: str) -> None:
    assert TraceContext.from_traceparent(text) is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_makes_ids_of_its_own() -> None:
    ids = IdGenerator()
    read, write = os.pipe()
    if not (child := os.fork()):
        os.write(write, ids.hex32().encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() != ids.hex32()


@pytest.mark.parametrize(("trace_id", "span_id", "flags"), [(1 << 128, 1, 0), (-1, 1, 0), (1, 1 << 64, 0), (1, 1, 256)])
def test_an_identity_that_no_header_could_carry_is_refused(trace_id: int, span_id: int, flags: int) -> None:
    with pytest.raises(InvalidInput, match="128, 64 and 8 bits"):
        TraceContext(trace_id, span_id, flags)


# Identity
def test_a_parent_from_headers_is_remote_and_one_of_this_process_is_not(tracer: Tracer) -> None:
    remote = TraceContext.from_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    assert remote is not None
    assert remote.is_remote
    with tracer.span("request", parent=remote) as request, tracer.span("inside"):
        assert not request.context.is_remote
        tracer.span("explicit", parent=request.context).end()
    assert [data.parent_is_remote for data in ended(tracer)] == [False, False, True]


def test_a_context_names_a_span_whether_it_is_remote_or_not() -> None:
    here, there = TraceContext(1, 2, 1, "a=b"), TraceContext(1, 2, 1, "a=b", is_remote=True)
    assert here == there
    assert len({here, there}) == 1
    assert here != TraceContext(1, 3, 1, "a=b")
    assert here != "no context"


def test_a_state_that_no_header_can_carry_is_dropped() -> None:
    assert TraceContext(1, 2, 1, "x" * 513).tracestate == ""
    assert TraceContext(1, 2, 1, "é").tracestate == ""


@pytest.mark.parametrize("bad", [1.5, "1", None, True, object()])
def test_an_identity_of_other_types_is_refused(bad: Any) -> None:
    for arguments in ((bad, 1), (1, bad), (1, 1, bad), (1, 1, 1, bad if not isinstance(bad, str) else b"x")):
        if arguments[-1] is None:
            continue
        with pytest.raises(InvalidInput):
            TraceContext(*arguments)
