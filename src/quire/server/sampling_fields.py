"""The fields of a body as `SamplingParams`, over the defaults of the server.

A value is the request's, else that of the generation config or a flag, else OpenAI's. Ranges are
checked by `SamplingParams` itself, so that the HTTP and the Python API give the same errors.
"""

from __future__ import annotations

from typing import Any

from quire import env
from quire.engine.async_engine import AsyncLLM
from quire.sampling_params import RequestOutputKind, SamplingParams
from quire.server.args import ServerArgs
from quire.server.errors import bad_request, bad_value, renamed
from quire.server.logits_processors import named_processors
from quire.server.output_constraint import output_constraint
from quire.server.protocol.chat import ChatCompletionRequest
from quire.server.protocol.common import GenerationBody
from quire.server.protocol.completions import CompletionRequest

COMPLETION_MAX_TOKENS = 16  # OpenAI's, for completions

# Copied under the same name; None means the server's default.
_SAME_NAME = (
    *("n", "best_of", "min_tokens", "temperature", "top_p", "top_k", "min_p", "seed"),
    *("presence_penalty", "frequency_penalty", "repetition_penalty", "allowed_token_ids"),
    *("bad_words", "stop_token_ids", "include_stop_str_in_output", "ignore_eos"),
    *("skip_special_tokens", "spaces_between_special_tokens", "stream_interval"),
    *("use_beam_search", "length_penalty", "early_stopping", "logit_bias"),
    "thinking_token_budget",
)
_OF_VOCABULARY = ("allowed_token_ids", "stop_token_ids", "logit_bias")  # hold token ids
# Defaults of the generation config for sampling; beam search does not use them.
_DRAWING = (
    *("temperature", "top_p", "top_k", "min_p"),
    *("presence_penalty", "frequency_penalty", "repetition_penalty"),
)


def completion_params(
    body: CompletionRequest, engine: AsyncLLM, args: ServerArgs
) -> SamplingParams:
    """The parameters of a ``/v1/completions`` request."""
    max_tokens = COMPLETION_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    if max_tokens == 0:
        if not body.echo:
            raise bad_request(
                "max_tokens must be at least 1, got 0; 0 is only possible with echo.", "max_tokens"
            )
        max_tokens = 1  # computed, but not returned
    prompt_logprobs = body.prompt_logprobs
    if body.stream and prompt_logprobs is not None:
        raise bad_request("prompt_logprobs cannot be streamed.", "prompt_logprobs")
    if body.echo and prompt_logprobs is None:
        prompt_logprobs = body.logprobs
    return _params(body, engine, args, max_tokens, body.logprobs, prompt_logprobs)


def chat_params(body: ChatCompletionRequest, engine: AsyncLLM, args: ServerArgs) -> SamplingParams:
    """The parameters of a ``/v1/chat/completions`` request."""
    num_top = body.top_logprobs or 0
    if num_top and not body.logprobs:
        raise bad_request(
            "when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs"
        )
    if body.stream and body.prompt_logprobs is not None:
        raise bad_request("prompt_logprobs cannot be streamed.", "prompt_logprobs")
    max_tokens, names = body.max_tokens, {}
    if body.max_completion_tokens is not None:
        max_tokens = body.max_completion_tokens
        names = {"max_tokens": "max_completion_tokens"}
    elif max_tokens is None:
        max_tokens = _default_max_tokens(engine)
    logprobs = num_top if body.logprobs else None
    with renamed(names):
        return _params(body, engine, args, max_tokens, logprobs, body.prompt_logprobs)


def _params(
    body: GenerationBody,
    engine: AsyncLLM,
    args: ServerArgs,
    max_tokens: int | None,
    logprobs: int | None,
    prompt_logprobs: int | None,
) -> SamplingParams:
    if body.stream_options is not None and not body.stream:
        raise bad_request("stream_options needs stream=true; set it.", "stream_options")
    _check_numbers(body, engine.model_config.get_vocab_size())
    values = _defaults(engine, is_beam_search=bool(body.use_beam_search))
    values["stream_interval"] = args.stream_interval
    values |= {name: value for name in _SAME_NAME if (value := getattr(body, name)) is not None}
    values |= output_constraint(body)
    values |= named_processors(body.logits_processors, args)
    _check_max_tokens(max_tokens, engine.model_config.max_model_len)
    values |= {"stop": _stop(body.stop), "output_kind": _kind(body, args)}
    values |= {"logprobs": logprobs, "prompt_logprobs": prompt_logprobs}
    try:
        params = SamplingParams.from_optional(**values, max_tokens=max_tokens)
    except ValueError as error:
        raise bad_value(error, type(body).model_fields) from error
    if body.use_beam_search or params.is_ranked:
        _check_only_at_end(body, params)
    _cap(params, engine.config.model.max_tokens_limit, args.max_output_tokens)
    return params


def _check_numbers(body: GenerationBody, vocab_size: int) -> None:
    """400 for more ids than the vocabulary has, before they are checked one by one."""
    for name in _OF_VOCABULARY:
        count = len(getattr(body, name) or ())
        if count > vocab_size:
            raise bad_request(
                f"{name} may have {vocab_size} token ids, as many as the vocabulary, got {count}; "
                "name each token of this model once.",
                name,
            )


def _default_max_tokens(engine: AsyncLLM) -> int | None:
    """The generation config's, at most the context length; None if it has none."""
    if engine.config.model.generation_config.get("max_new_tokens") is None:
        return None
    default = engine.get_default_sampling_params().max_tokens
    return None if default is None else min(default, engine.model_config.max_model_len)


def _defaults(engine: AsyncLLM, *, is_beam_search: bool) -> dict[str, Any]:
    """Defaults of the generation config."""
    recommended = engine.get_default_sampling_params()
    names = ("skip_special_tokens", *(() if is_beam_search else _DRAWING))
    return {name: getattr(recommended, name) for name in names}


def _kind(body: GenerationBody, args: ServerArgs) -> RequestOutputKind:
    """When outputs come: only at the end is cheapest, but streams and time limits need deltas."""
    limits = (args.request_timeout, body.timeout_s, body.queue_timeout_s)
    has_limit = any(limit is not None for limit in limits)
    return RequestOutputKind.DELTA if body.stream or has_limit else RequestOutputKind.FINAL_ONLY


def _check_max_tokens(max_tokens: int | None, max_model_len: int) -> None:
    if max_tokens is None:
        return
    if max_tokens < 1:
        raise bad_request(
            f"max_tokens must be at least 1, got {max_tokens}; leave it out for the default.",
            "max_tokens",
        )
    if max_tokens > max_model_len:
        raise bad_request(
            f"max_tokens must be at most {max_model_len}, the length of the context, got "
            f"{max_tokens}; leave it out for all that remains after the prompt.",
            "max_tokens",
        )


def _cap(params: SamplingParams, *limits: int | None) -> None:
    """Lower the token limits to the operator's, without an error."""
    for limit in limits:
        if limit is not None:
            params.max_tokens = min(params.max_tokens or limit, limit)
            params.min_tokens = min(params.min_tokens, limit)


def _stop(stop: str | list[str] | None) -> list[str] | None:
    strings = [stop] if isinstance(stop, str) else stop
    limit = env.MAX_STOP_STRINGS.get()
    if strings is not None and len(strings) > limit:
        raise bad_request(
            f"stop may have {limit} strings, got {len(strings)}; use stop_token_ids where a string "
            f"is one token, or start the server with {env.MAX_STOP_STRINGS.names[0]} set to more.",
            "stop",
        )
    return strings


def _check_only_at_end(body: GenerationBody, params: SamplingParams) -> None:
    """400 for what needs early output: beam search and ``best_of`` have output only at the end."""
    if body.stream and body.use_beam_search:
        raise bad_request(
            "Beam search cannot be streamed: beams are only known at the end; leave out stream.",
            "use_beam_search",
        )
    if body.stream:
        raise bad_request(
            f"best_of={params.best_of} is more than n={params.n}, which cannot be streamed: the "
            "best completions are only known at the end; leave out stream or best_of.",
            "best_of",
        )
    if body.queue_timeout_s is not None:
        raise bad_request(
            "queue_timeout_s cannot be used with beam search or best_of, whose first output is "
            "their last; use timeout_s.",
            "queue_timeout_s",
        )
