"""Messages come out of bytes as they went in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quire.engine.messages import (
    STATS,
    Abort,
    AddRequest,
    Answer,
    Deltas,
    Failed,
    Finish,
    Start,
    Stop,
    answer_value,
    decode_command,
    decode_reply,
    encode,
)
from quire.errors import ModelLoadError
from quire.request import BeamSearch, EngineRequest, FinishReason, RowSampling, Watch
from quire.step import TokenLogprobs
from quire.step_output import CompletionDelta, CompletionTiming, EngineStats
from tests.fakes.configs import fake_config

REQUEST = EngineRequest(
    request_id="a",
    prompt_token_ids=[1, 2, 3],
    sampling=RowSampling(
        temperature=0.5,
        seed=-(2**63),
        logit_bias=((5, -1.5),),
        bad_words_token_ids=((1, 2), (3,)),
        num_logprobs=-1,
    ),
    max_tokens=7,
    n=3,
    beam=BeamSearch(width=4, early_stopping="never"),
    watch=Watch.AT_END,
    cache_salt="salt",
    serial=7,
)


@pytest.mark.parametrize(
    "command",
    [
        Start("module:build", fake_config(folder=Path("/some/folder")), log_level=20),
        AddRequest(REQUEST),
        Abort(["a", "b"]),
        Abort(["a"], keeps_tokens=True),
        Finish("a", 2),
        Stop(),
    ],
)
def test_commands_survive(command: object) -> None:
    assert decode_command(encode(command)) == command  # type: ignore[arg-type]


def test_deltas_survive_with_their_arrays() -> None:
    logprobs = TokenLogprobs(
        token_ids=np.array([[5, 6, 7]], dtype=np.int32),
        logprobs=np.array([[-0.5, -1.5, -np.inf]], dtype=np.float32),
        ranks=np.array([2], dtype=np.int32),
    )
    delta = CompletionDelta(
        request_id="a",
        index=1,
        new_token_ids=[5],
        finish_reason=FinishReason.STOP,
        stop_reason="end",
        logprobs=[logprobs],
        prompt_logprobs=logprobs,
        timing=CompletionTiming(arrival_time=1.5),
    )
    reply = decode_reply(encode(Deltas([delta])))
    assert isinstance(reply, Deltas)
    (back,) = reply.deltas
    assert back.finish_reason is FinishReason.STOP
    assert (back.stop_reason, back.timing) == ("end", delta.timing)
    assert back.logprobs is not None and back.prompt_logprobs is not None
    for arrays in (back.logprobs[0], back.prompt_logprobs):
        for name in ("token_ids", "logprobs", "ranks"):
            sent, received = getattr(logprobs, name), getattr(arrays, name)
            assert received.dtype == sent.dtype
            np.testing.assert_array_equal(received, sent)


def test_answers_survive() -> None:
    stats = EngineStats(num_running=3, kv_waste=0.25)
    answer = decode_reply(encode(Answer(stats)))
    assert isinstance(answer, Answer)
    assert answer_value(STATS, answer) == stats


class Odd(Exception):
    """An exception type that the front end does not know."""


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("value 3 is too large"), ValueError, "value 3 is too large"),
        (ModelLoadError("no config.json"), ModelLoadError, "no config.json"),
        (Odd("strange"), RuntimeError, "Odd: strange"),
        (
            UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
            RuntimeError,
            "UnicodeDecodeError: 'utf-8' codec can't decode byte 0x78 in position 0: bad",
        ),
    ],
)
def test_exceptions_keep_type_and_message(error: Exception, kind: type, message: str) -> None:
    back = Failed.of(error).to_exception()
    assert type(back) is kind
    assert str(back) == message
    assert type(error).__name__ in str(back.__cause__)


def test_numbers_out_of_arrays_become_plain_ones() -> None:
    sampling = RowSampling(top_k=np.int64(3), temperature=np.float32(0.5))  # type: ignore[arg-type]
    request = EngineRequest(
        request_id="a", prompt_token_ids=[1], sampling=sampling, max_tokens=np.int32(4)
    )
    sent = decode_command(encode(AddRequest(request)))
    assert isinstance(sent, AddRequest)
    assert (sent.request.max_tokens, sent.request.sampling.top_k) == (4, 3)
    assert sent.request.sampling.temperature == 0.5
