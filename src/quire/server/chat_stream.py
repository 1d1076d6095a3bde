"""The events of a chat stream, as outputs come from the engine."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from quire.outputs import CompletionOutput
from quire.server.chat_view import ChatView
from quire.server.envelope import Envelope
from quire.server.generation import Generation
from quire.server.protocol.chat import ChatCompletionRequest
from quire.server.sse import DONE, Chunks, encode
from quire.server.usage import StreamUsage


class ChatStream:
    """One stream; the first event carries the role of every choice."""

    def __init__(
        self,
        generation: Generation,
        envelope: Envelope,
        body: ChatCompletionRequest,
        view: ChatView,
        usage: StreamUsage,
    ) -> None:
        self._generation = generation
        self._chunks = Chunks(envelope, "chat.completion.chunk")
        self._body = body
        self._view = view
        self._prompt = generation.job.prompts[0]
        self._usage = usage

    async def run(self) -> AsyncGenerator[bytes, None]:
        start = self._start()  # leaves with the first output: until then an error has a status
        async with contextlib.aclosing(self._generation.outputs()) as outputs:
            async for _, output in outputs:
                data = b"".join(self._chunk(one) for one in output.outputs)
                if start or data:
                    yield start + data
                start = b""
        if self._usage.at_end:
            yield self._chunks.chunk(b"", usage=self._generation.usage.as_dict())
        yield DONE

    def _start(self) -> bytes:
        """A chunk with the role for each choice, then the echo."""
        body = self._body
        facts = {
            "prompt_token_ids": self._prompt.token_ids if body.return_token_ids else None,
            "prompt_text": self._prompt.text if body.return_prompt_text else None,
        }
        more = b"," + encode(facts)[1:-1]
        indexes = range(self._generation.job.params.n)
        role = {"role": self._view.role, "content": ""}
        start = b"".join(self._send(_full(i, role), more=more) for i in indexes)
        if self._view.echo:
            start += b"".join(self._send(_plain(i, self._view.echo)) for i in indexes)
        return start

    def _chunk(self, one: CompletionOutput) -> bytes:
        """Nothing, if there is nothing to see yet: half a character, or a stop string's start."""
        has_more = self._body.logprobs or self._body.return_token_ids
        if not has_more and one.finish_reason is None:
            return self._send(_plain(one.index, one.text)) if one.text else b""
        more: dict[str, Any] = {"logprobs": self._view.logprobs(one)}
        more["finish_reason"] = one.finish_reason
        if one.finish_reason is not None:
            more["stop_reason"] = one.stop_reason
        if self._body.return_token_ids:
            more["token_ids"] = one.token_ids
        choice = _full(one.index, {"content": one.text}, **more)
        return self._send(choice, is_last=one.finish_reason is not None)

    def _send(self, choice: bytes, *, is_last: bool = False, more: bytes = b"") -> bytes:
        running = self._usage.on_every_chunk
        usage = self._generation.usage.as_dict() if running else None
        return self._chunks.chunk(choice, usage=usage, is_last=is_last, more=more)


def _plain(index: int, text: str) -> bytes:
    return b'{"index":%d,"delta":{"content":%b},"logprobs":null,"finish_reason":null}' % (
        index,
        encode(text),
    )


def _full(index: int, delta: dict[str, Any], **more: Any) -> bytes:
    known = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
    return encode({**known, **more})
