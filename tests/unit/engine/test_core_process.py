"""What the core's process keeps in mind of the front ends that share it."""

from __future__ import annotations

import zmq

from quire.engine.core_process import _AttachedFront
from quire.engine.messages import AddRequest
from quire.request import BeamSearch, EngineRequest, RowSampling


def test_a_beam_search_that_finds_fewer_answers_than_asked_for_has_ended() -> None:
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        front = _AttachedFront(socket, socket)
        for name, beam in (("beams", BeamSearch(width=4)), ("samples", None)):
            request = EngineRequest(
                request_id=name,
                prompt_token_ids=[1],
                sampling=RowSampling(),
                max_tokens=1,
                n=4,
                beam=beam,
            )
            front.add(AddRequest(request))
            for index in range(2):  # all that the search has found
                front.end_completion(name, index)
        assert front.request_ids == ["samples"]
