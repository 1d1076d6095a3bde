"""The events of a completions stream, as outputs come from the engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from quire.outputs import CompletionOutput, PromptLogprobs, RequestOutput
from quire.server.completion_view import CompletionView, Echo
from quire.server.envelope import Envelope
from quire.server.generation import Generation
from quire.server.logprobs import CompletionLogprobs
from quire.server.protocol.completions import CompletionRequest
from quire.server.sse import DONE, Chunks, encode
from quire.server.usage import StreamUsage
from quire.server.whole import IN_THREAD_TOKENS, completion_size, prompt_size


class CompletionStream:
    """One stream; an output becomes one chunk per choice, however many tokens it has. All of them
    are yielded together, unless they are large: then each is built in a thread of its own."""

    def __init__(
        self,
        generation: Generation,
        envelope: Envelope,
        body: CompletionRequest,
        view: CompletionView,
        usage: StreamUsage,
    ) -> None:
        self._generation = generation
        self._chunks = Chunks(envelope, "text_completion")
        self._body = body
        self._view = view
        self._usage = usage
        self._n = generation.wanted.params.n
        self._prompt_logprobs: dict[int, PromptLogprobs] = {}  # by prompt index; sent only once
        self._logprobs: dict[int, CompletionLogprobs] = {}  # by choice index, once it has begun

    async def run(self) -> AsyncGenerator[bytes, None]:
        async with contextlib.aclosing(self._generation.outputs()) as outputs:
            async for prompt, output in outputs:
                if output.prompt_logprobs is not None:
                    self._prompt_logprobs[prompt] = output.prompt_logprobs
                if self._is_large(prompt, output):
                    for one in output.outputs:
                        yield await asyncio.to_thread(self._chunk, prompt, output, one)
                    continue
                data = b"".join(self._chunk(prompt, output, one) for one in output.outputs)
                if data:
                    yield data
        if self._usage.at_end:
            yield self._chunks.chunk(b"", usage=self._generation.usage.as_dict())
        yield DONE

    def _is_large(self, prompt: int, output: RequestOutput) -> bool:
        if self._body.logprobs is None:
            return False
        size = sum(completion_size(one) for one in output.outputs)
        num_new = sum(self._index(prompt, one) not in self._logprobs for one in output.outputs)
        if num_new:
            size += num_new * prompt_size(self._prompt_logprobs.get(prompt))
        return size >= IN_THREAD_TOKENS

    def _index(self, prompt: int, one: CompletionOutput) -> int:
        return one.index + prompt * self._n

    def _chunk(self, prompt: int, output: RequestOutput, one: CompletionOutput) -> bytes:
        """The chunk for one output; b"" while its text is held back, as half a character or the
        possible start of a stop string."""
        index = self._index(prompt, one)
        is_first = index not in self._logprobs
        if is_first:
            self._logprobs[index] = self._view.logprobs(prompt)
        echo = self._view.echoes[prompt]
        text = echo.text + one.text if is_first else one.text
        has_more = self._body.logprobs is not None or self._body.return_token_ids
        if not has_more and one.finish_reason is None:
            choice = _plain(index, text)
        else:
            more = self._more(prompt, index, is_first, output, one) if has_more else {}
            choice = _full(index, text, one, more)
        if not (text or has_more or one.finish_reason is not None):
            return b""
        running = self._usage.on_every_chunk
        return self._chunks.chunk(
            choice,
            usage=self._generation.usage.as_dict() if running else None,
            is_last=one.finish_reason is not None,
        )

    def _more(
        self, prompt: int, index: int, is_first: bool, output: RequestOutput, one: CompletionOutput
    ) -> dict[str, Any]:
        more: dict[str, Any] = {}
        if self._body.logprobs is not None:
            echo = self._view.echoes[prompt] if is_first else Echo()
            token_ids = [*echo.token_ids, *one.token_ids]
            before = echo.positions(self._prompt_logprobs.get(prompt))
            positions = [*before, *(one.logprobs or ())]
            more["logprobs"] = self._logprobs[index].of(token_ids, positions)
        if self._body.return_token_ids:
            more["prompt_token_ids"] = output.prompt_token_ids if is_first else None
            more["token_ids"] = one.token_ids
        return more


def _plain(index: int, text: str) -> bytes:
    return b'{"index":%d,"text":%b,"logprobs":null,"finish_reason":null,"stop_reason":null}' % (
        index,
        encode(text),
    )


def _full(index: int, text: str, one: CompletionOutput, more: dict[str, Any]) -> bytes:
    known = {
        "index": index,
        "text": text,
        "logprobs": None,
        "finish_reason": one.finish_reason,
        "stop_reason": one.stop_reason,
    }
    return encode({**known, **more})
