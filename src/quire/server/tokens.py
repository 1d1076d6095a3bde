"""Endpoints that count and convert tokens, and that show the prompt of a conversation."""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter, Request
from starlette.responses import Response

from quire.prompts import ParsedPrompt
from quire.server.chat_prompt import chat_prompt
from quire.server.error_responses import json_response
from quire.server.errors import bad_request
from quire.server.fields import ignored_headers, judge
from quire.server.prompt_tokens import off_loop, tokenized
from quire.server.protocol.chat import ChatCompletionRequest
from quire.server.protocol.common import Body
from quire.server.protocol.tokens import DetokenizeRequest, TokenizeRequest
from quire.server.state import ServerState, state_of

router = APIRouter(tags=["tokens"])


@router.post("/tokenize", response_model=None)
@router.post("/v1/tokenize", response_model=None)
async def tokenize(body: TokenizeRequest, request: Request) -> Response:
    """The tokens of a prompt, or of messages in the model's template."""
    state = state_of(request)
    headers = _checked(state, body)
    engine = state.require_engine()
    tokenizer = engine.front.require_tokenizer()
    (prompt,) = await tokenized(engine, [await _prompt(state, body)])
    token_ids = prompt.token_ids or []
    strings = tokenizer.convert_ids_to_tokens(token_ids) if body.return_token_strs else None
    answer = {
        "count": len(token_ids),
        "max_model_len": engine.model_config.max_model_len,
        "tokens": token_ids,
        "token_strs": strings,
    }
    return json_response(answer, headers=headers)


@router.post("/detokenize", response_model=None)
@router.post("/v1/detokenize", response_model=None)
async def detokenize(body: DetokenizeRequest, request: Request) -> Response:
    """The text of tokens, special ones too."""
    state = state_of(request)
    headers = _checked(state, body)
    engine = state.require_engine()
    tokenizer = engine.front.require_tokenizer()
    size = max(len(tokenizer), engine.model_config.get_vocab_size())
    wrong = next((one for one in body.tokens if one >= size), None)
    if wrong is not None:
        raise bad_request(
            f"token id {wrong} is outside the vocabulary, 0 to {size - 1}; use token ids of this "
            "model's tokenizer.",
            "tokens",
        )
    text = await off_loop(len(body.tokens), lambda: str(tokenizer.decode(body.tokens)))
    return json_response({"prompt": text}, headers=headers)


@router.post("/v1/chat/completions/input_tokens", response_model=None)
async def input_tokens(body: ChatCompletionRequest, request: Request) -> Response:
    """How many tokens a chat request would read."""
    state = state_of(request)
    headers = _checked(state, body)
    prompt = await chat_prompt(state, body)
    (prompt,) = await tokenized(state.require_engine(), [prompt])
    answer = {"object": "response.input_tokens", "input_tokens": len(prompt.token_ids or ())}
    return json_response(answer, headers=headers)


@router.post("/apply-template", response_model=None)
async def apply_template(body: ChatCompletionRequest, request: Request) -> Response:
    """The prompt that a chat request would become."""
    state = state_of(request)
    headers = _checked(state, body)
    return json_response({"prompt": (await chat_prompt(state, body)).text}, headers=headers)


def _checked(state: ServerState, body: Body) -> dict[str, str]:
    """Model and fields are right; the headers to answer with."""
    state.require_engine()
    state.require_models().check(body.model)
    strict = state.args.strict_fields
    return ignored_headers(judge(body, strict), strict)


async def _prompt(state: ServerState, body: TokenizeRequest) -> ParsedPrompt:
    if (body.prompt is None) == (body.messages is None):
        raise bad_request("Pass either prompt, a string, or messages.", "prompt")
    if body.messages is not None:
        return await chat_prompt(state, body)
    special = True if body.add_special_tokens is None else body.add_special_tokens
    return replace(ParsedPrompt(text=body.prompt), add_special_tokens=special)
