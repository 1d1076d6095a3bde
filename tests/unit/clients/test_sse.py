from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from quire.clients.sse import EventSplitter

STREAM = b'data: {"a": 1}\n\n: still here\n\ndata:two\ndata: lines\n\nevent: x\ndata: [DONE]\n\n'
DATA = [b'{"a": 1}', b"two\nlines", b"[DONE]"]


@given(st.lists(st.integers(0, len(STREAM))), st.booleans())
def test_events_are_the_same_however_the_bytes_are_cut(cuts: list[int], has_returns: bool) -> None:
    stream = STREAM.replace(b"\n", b"\r\n") if has_returns else STREAM
    splitter, found = EventSplitter(), []
    ends = sorted({0, *cuts, len(stream)})
    for begin, end in itertools.pairwise(ends):
        found += splitter.feed(stream[begin:end])
    assert found == DATA


def test_an_event_without_its_end_is_kept() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: half") == []
    assert splitter.feed(b" and half\n\n") == [b"half and half"]
