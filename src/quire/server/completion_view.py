"""The choices of a completions answer: text, echo, log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from quire.engine.front import Front
from quire.outputs import CompletionOutput, Logprob, PromptLogprobs, RequestOutput
from quire.prompts import ParsedPrompt
from quire.server.logprobs import CompletionLogprobs, TokenOffsets, prompt_logprobs
from quire.server.protocol.completions import CompletionRequest
from quire.server.state import ServerState


@dataclass(frozen=True, kw_only=True, slots=True)
class Echo:
    """A prompt that the answer repeats; empty where the request wants no echo."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, prompt: ParsedPrompt, front: Front, skip_special_tokens: bool) -> Echo:
        """The prompt's text as the client wrote it, or decoded if token ids were sent or the
        prompt was cut."""
        token_ids = prompt.token_ids or []
        text = prompt.text
        if text is None:
            tokenizer = front.require_tokenizer()
            text = str(tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens))
        return cls(text=text, token_ids=token_ids)

    def positions(self, logprobs: PromptLogprobs | None) -> list[dict[int, Logprob] | None]:
        """The log-probabilities of each prompt token; None where none were computed."""
        if logprobs is None or not self.token_ids:
            return [None] * len(self.token_ids)
        return list(logprobs)


class CompletionView:
    """Renders outputs as the choices that one completions request asks for."""

    def __init__(
        self, state: ServerState, body: CompletionRequest, prompts: Sequence[ParsedPrompt]
    ) -> None:
        front = state.require_engine().front
        self._body = body
        self._vocabulary = front.vocabulary
        self._as_token_ids = names_tokens_by_id(body.return_tokens_as_token_ids, state)
        self._prompts = prompts
        skip = body.skip_special_tokens
        if skip is None:
            skip = front.default_sampling_params().skip_special_tokens
        self._skips_special = skip
        self.echoes = [Echo.of(prompt, front, skip) if body.echo else Echo() for prompt in prompts]

    def choices(self, outputs: list[RequestOutput]) -> list[dict[str, Any]]:
        """The choices of all prompts in order, numbered consecutively."""
        found: list[dict[str, Any]] = []
        for prompt, output in enumerate(outputs):
            for one in output.outputs:
                found.append(self._choice(len(found), prompt, output, one))
        return found

    def logprobs(self, prompt: int) -> CompletionLogprobs:
        """A new builder of the log-probabilities of one choice for the prompt of this index."""
        offsets = TokenOffsets(
            self._vocabulary,
            self._prompts[prompt].token_ids or (),
            echo=self.echoes[prompt].text if self._body.echo else None,
            skip_special_tokens=self._skips_special,
        )
        return CompletionLogprobs(self._vocabulary, self._as_token_ids, offsets)

    def _choice(
        self, index: int, prompt: int, output: RequestOutput, one: CompletionOutput
    ) -> dict[str, Any]:
        body, echo = self._body, self.echoes[prompt]
        shown, logprobs = prompt_logprobs(output.prompt_logprobs), None
        if body.logprobs is not None:
            positions = [*echo.positions(output.prompt_logprobs), *(one.logprobs or ())]
            logprobs = self.logprobs(prompt).of([*echo.token_ids, *one.token_ids], positions)
        return {
            "index": index,
            "text": echo.text + one.text,
            "logprobs": logprobs,
            "finish_reason": one.finish_reason,
            "stop_reason": one.stop_reason,
            "token_ids": one.token_ids if body.return_token_ids else None,
            "prompt_logprobs": None if body.prompt_logprobs is None else shown,
            "prompt_token_ids": output.prompt_token_ids if body.return_token_ids else None,
        }


def names_tokens_by_id(asked: bool | None, state: ServerState) -> bool:
    """Whether log-probabilities name tokens ``token_id:N``: the request's field, else the flag."""
    return state.args.return_tokens_as_token_ids if asked is None else asked
