"""The events of a chat stream, as outputs come from the engine."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

from quire.outputs import CompletionOutput
from quire.server.answer_form import AnswerReader
from quire.server.chat_view import ChatView, deltas
from quire.server.envelope import Envelope
from quire.server.generation import Generation
from quire.server.sse import DONE, Chunks, encode
from quire.server.usage import StreamUsage, Usage


class ChatStream:
    """One stream; the first event carries the role of every choice."""

    def __init__(
        self,
        generation: Generation,
        envelope: Envelope,
        view: ChatView,
        usage: StreamUsage,
    ) -> None:
        self._generation = generation
        self._chunks = Chunks(envelope, "chat.completion.chunk")
        self._view = view
        self._prompt = generation.wanted.prompts[0]
        self._usage = usage
        self._readers: dict[int, AnswerReader] = {}  # by choice index, where text is parsed

    async def run(self) -> AsyncGenerator[bytes, None]:
        has_begun = False
        async with contextlib.aclosing(self._generation.outputs()) as outputs:
            async for _, output in outputs:
                # The start waits for the first output: until then an error can have a status.
                data = b"" if has_begun else self._start()
                data += b"".join(self._chunk(one) for one in output.outputs)
                has_begun = True
                if data:
                    yield data
        if self._usage.at_end:
            yield self._chunks.chunk(b"", usage=self._generation.usage.as_dict())
        yield DONE

    def _start(self) -> bytes:
        """A chunk with the role for each choice, then the echo, whose tokens do not count."""
        usage = replace(self._generation.usage, completion_tokens=0)
        more = b"," + encode(self._view.prompt_facts(self._prompt))[1:-1]
        indexes = range(self._generation.wanted.params.n)
        role = {"role": self._view.role, "content": ""}
        start = b"".join(self._send(_full(i, role), usage, more=more) for i in indexes)
        if self._view.echo:
            start += b"".join(self._send(_plain(i, self._view.echo), usage) for i in indexes)
        return start

    def _chunk(self, one: CompletionOutput) -> bytes:
        """The chunk for one output; b"" while its text is held back, as half a character or the
        possible start of a stop string."""
        if not self._view.form.is_plain:
            return self._read_chunk(one)
        has_more = self._view.has_logprobs or self._view.has_token_ids
        if not has_more and one.finish_reason is None:
            return self._send(_plain(one.index, one.text)) if one.text else b""
        choice = _full(one.index, {"content": one.text}, **self._facts(one, one.finish_reason))
        return self._send(choice, is_last=one.finish_reason is not None)

    def _read_chunk(self, one: CompletionOutput) -> bytes:
        """The chunks for one output whose text may hold tool calls and reasoning, or b""."""
        reader = self._readers.get(one.index)
        if reader is None:
            reader = self._readers[one.index] = self._view.form.reader()
        pieces = reader.feed(one.text)
        reason = one.finish_reason
        if reason is not None:
            pieces += reader.finish()
            reason = self._view.finish_reason(one, reader.answer)
        is_told = self._usage.on_every_chunk
        self._view.reasoning_tokens.add(one, reader.answer, is_told=is_told)
        has_more = self._view.has_logprobs or self._view.has_token_ids
        found = deltas(pieces)
        if reason is not None or (has_more and not found):
            found = found or [{}]
        if not found:
            return b""
        *earlier, last = (_full(one.index, delta) for delta in found)
        if has_more or reason is not None:
            last = _full(one.index, found[-1], **self._facts(one, reason))
        data = b"".join(self._send(choice) for choice in earlier)
        return data + self._send(last, is_last=reason is not None)

    def _facts(self, one: CompletionOutput, reason: str | None) -> dict[str, Any]:
        """The fields of a choice besides its delta."""
        facts: dict[str, Any] = {"logprobs": self._view.logprobs(one), "finish_reason": reason}
        if reason is not None:
            facts["stop_reason"] = one.stop_reason
        if self._view.has_token_ids:
            facts["token_ids"] = one.token_ids
        return facts

    def _send(
        self,
        choice: bytes,
        usage: Usage | None = None,
        *,
        is_last: bool = False,
        more: bytes = b"",
    ) -> bytes:
        """The choice as a chunk, with the usage so far if every chunk is to have it."""
        told = None
        if self._usage.on_every_chunk:
            told = (usage or self._generation.usage).as_dict()
        return self._chunks.chunk(choice, usage=told, is_last=is_last, more=more)


def _plain(index: int, text: str) -> bytes:
    return b'{"index":%d,"delta":{"content":%b},"logprobs":null,"finish_reason":null}' % (
        index,
        encode(text),
    )


def _full(index: int, delta: dict[str, Any], **more: Any) -> bytes:
    known = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
    return encode({**known, **more})
