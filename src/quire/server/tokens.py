"""Endpoints that count and convert tokens, and that show the prompt of a conversation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from quire.engine.async_engine import AsyncLLM
from quire.prompts import ParsedPrompt
from quire.server.bodies import BodyRoute
from quire.server.error_responses import json_response
from quire.server.errors import bad_request
from quire.server.input_phase import go_on
from quire.server.intake import countable_chat, read
from quire.server.prompt_tokens import check_countable, tokenized_for_counting
from quire.server.protocol.chat import ChatCompletionRequest
from quire.server.protocol.common import Body
from quire.server.protocol.tokens import ONLY_WITH_MESSAGES, DetokenizeRequest, TokenizeRequest
from quire.server.state import ServerState, state_of

router = APIRouter(tags=["tokens"], route_class=BodyRoute)


@router.post("/tokenize", response_model=None)
@router.post("/v1/tokenize", response_model=None)
async def tokenize(body: TokenizeRequest, request: Request) -> Response:
    """The tokens of a prompt, or of messages in the model's template."""

    def work(state: ServerState, engine: AsyncLLM) -> dict[str, Any]:
        tokenizer = engine.front.require_tokenizer()
        param = "messages" if body.prompt is None else "prompt"
        prompt = tokenized_for_counting(engine, _prompt(state, body), param)
        go_on()
        token_ids = prompt.token_ids or []
        strings = tokenizer.convert_ids_to_tokens(token_ids) if body.return_token_strs else None
        return {
            "count": len(token_ids),
            "max_model_len": engine.model_config.max_model_len,
            "tokens": token_ids,
            "token_strs": strings,
        }

    return await _answer(request, body, work)


@router.post("/detokenize", response_model=None)
@router.post("/v1/detokenize", response_model=None)
async def detokenize(body: DetokenizeRequest, request: Request) -> Response:
    """The text of tokens, special ones too."""

    def work(state: ServerState, engine: AsyncLLM) -> dict[str, Any]:
        tokenizer = engine.front.require_tokenizer()
        check_countable(engine, len(body.tokens), "token ids", "tokens")
        size = max(len(tokenizer), engine.model_config.get_vocab_size())
        wrong = next((one for one in body.tokens if one >= size), None)
        if wrong is not None:
            raise bad_request(
                f"token id {wrong} is outside the vocabulary, 0 to {size - 1}; use token ids of "
                "this model's tokenizer.",
                "tokens",
            )
        return {"prompt": str(tokenizer.decode(body.tokens))}

    return await _answer(request, body, work)


@router.post("/v1/chat/completions/input_tokens", response_model=None)
async def input_tokens(body: ChatCompletionRequest, request: Request) -> Response:
    """How many tokens a chat request would read."""

    def work(state: ServerState, engine: AsyncLLM) -> dict[str, Any]:
        prompt = tokenized_for_counting(engine, countable_chat(state, body))
        num_tokens = len(prompt.token_ids or ())
        return {"object": "response.input_tokens", "input_tokens": num_tokens}

    return await _answer(request, body, work)


@router.post("/apply-template", response_model=None)
async def apply_template(body: ChatCompletionRequest, request: Request) -> Response:
    """The prompt that a chat request would become."""
    return await _answer(
        request, body, lambda state, engine: {"prompt": countable_chat(state, body).text}
    )


async def _answer(
    request: Request, body: Body, work: Callable[[ServerState, AsyncLLM], dict[str, Any]]
) -> Response:
    state = state_of(request)
    engine = state.require_engine()
    state.require_models().check(body.model)
    headers, content = await read(request, body, lambda: work(state, engine))
    return json_response(content, headers=headers)


def _prompt(state: ServerState, body: TokenizeRequest) -> ParsedPrompt:
    if (body.prompt is None) == (body.messages is None):
        raise bad_request("Pass either prompt, a string, or messages.", "prompt")
    if body.messages is not None:
        return countable_chat(state, body)
    for name in ONLY_WITH_MESSAGES:
        if getattr(body, name) not in (None, TokenizeRequest.model_fields[name].default):
            raise bad_request(f"{name} goes with messages, not with a prompt; leave it out.", name)
    special = True if body.add_special_tokens is None else body.add_special_tokens
    return replace(ParsedPrompt(text=body.prompt), add_special_tokens=special)
