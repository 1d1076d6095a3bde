"""The fields of a body as sampling parameters, over the server's defaults and under its limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from quire.engine.async_engine import AsyncLLM
from quire.sampling_params import SamplingParams
from quire.server.args import ServerArgs
from quire.server.errors import HTTPError
from quire.server.protocol.chat import ChatCompletionRequest
from quire.server.protocol.completions import CompletionRequest
from quire.server.sampling_fields import chat_params, completion_params
from tests.fakes.server import tiny_engine

LIMIT = 24
DEFAULTS = {
    "temperature": 0.5,
    "presence_penalty": 1.9,
    "frequency_penalty": 1.8,
    "skip_special_tokens": False,
    "max_new_tokens": LIMIT,
}


@pytest.fixture(scope="module")
def overridden() -> Iterator[AsyncLLM]:
    """Its user has a generation config."""
    engine = tiny_engine(override_generation_config=DEFAULTS)
    yield engine
    engine.shutdown()


def of_completions(engine: AsyncLLM, limit: int | None = None, **fields: Any) -> SamplingParams:
    body = CompletionRequest(prompt="x", **fields)
    return completion_params(body, engine, ServerArgs(max_output_tokens=limit))


def of_chat(engine: AsyncLLM, limit: int | None = None, **fields: Any) -> SamplingParams:
    body = ChatCompletionRequest(messages=[{"role": "user", "content": "x"}], **fields)
    return chat_params(body, engine, ServerArgs(max_output_tokens=limit))


@pytest.mark.parametrize("params_of", [of_completions, of_chat])
def test_a_generation_config_has_defaults(overridden: AsyncLLM, params_of: Any) -> None:
    params = params_of(overridden)
    assert (params.temperature, params.skip_special_tokens) == (0.5, False)
    assert (params.presence_penalty, params.frequency_penalty) == (1.9, 1.8)
    own = {"presence_penalty": 0.0, "frequency_penalty": 0.5, "skip_special_tokens": True}
    params = params_of(overridden, **own)
    assert {name: getattr(params, name) for name in own} == own


@pytest.mark.parametrize("body", [CompletionRequest, ChatCompletionRequest])
def test_a_flag_says_how_many_tokens_an_event_has_unless_a_request_does(
    engine: AsyncLLM, body: Any
) -> None:
    own = {"prompt": "x"} if body is CompletionRequest else {"messages": [{"role": "user"}]}
    params_of = completion_params if body is CompletionRequest else chat_params
    args = ServerArgs(stream_interval=7)
    assert params_of(body(**own), engine, args).stream_interval == 7
    assert params_of(body(**own, stream_interval=2), engine, args).stream_interval == 2


def test_beams_take_over_only_what_is_not_about_drawing(overridden: AsyncLLM) -> None:
    params = of_completions(overridden, use_beam_search=True, n=2)
    assert (params.temperature, params.presence_penalty) == (1.0, 0.0)
    assert params.skip_special_tokens is False


def test_max_new_tokens_of_the_user_is_a_limit(overridden: AsyncLLM, engine: AsyncLLM) -> None:
    for params_of in (of_completions, of_chat):
        assert params_of(overridden, max_tokens=100).max_tokens == LIMIT
        assert params_of(overridden, max_tokens=5).max_tokens == 5
        assert params_of(overridden, 8, max_tokens=100).max_tokens == 8
        assert params_of(overridden, 80, max_tokens=100).max_tokens == LIMIT
        assert params_of(engine, max_tokens=100).max_tokens == 100
    assert of_chat(overridden).max_tokens == LIMIT
    assert of_completions(overridden).max_tokens == 16
    assert of_chat(engine).max_tokens is None


@pytest.mark.parametrize("params_of", [of_completions, of_chat])
@pytest.mark.parametrize("limit", [None, 8])
def test_min_tokens_are_compared_with_what_was_asked_for(
    engine: AsyncLLM, params_of: Any, limit: int | None
) -> None:
    with pytest.raises(HTTPError, match=r"min_tokens must be at most max_tokens=16, got 20"):
        params_of(engine, limit, max_tokens=16, min_tokens=20)
    params = params_of(engine, limit, max_tokens=16, min_tokens=12)
    expected = (16, 12) if limit is None else (limit, limit)
    assert (params.max_tokens, params.min_tokens) == expected


@pytest.mark.parametrize("params_of", [of_completions, of_chat])
def test_the_operator_says_how_many_stop_strings_there_may_be(
    engine: AsyncLLM, params_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    five = [*"abcde"]
    with pytest.raises(HTTPError, match=r"may have 4 strings, got 5; .*QUIRE_MAX_STOP_STRINGS"):
        params_of(engine, stop=five)
    monkeypatch.setenv("VLLM_MAX_STOP_STRINGS", "5")
    assert params_of(engine, stop=five).stop == five
