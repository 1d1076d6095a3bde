"""One streamed answer, measured as it arrives.

Every event of the answer counts once, however many tokens it holds, and without text too: an end
of sequence shows none, but the usage, which counts the tokens, includes it. Runs in the transport's
callback, so it does little.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import msgspec

from quire.clients.sse import DONE, EventSplitter


@dataclass(kw_only=True, slots=True)
class Measured:
    """What became of one request; times in seconds, `started` on the clock of `perf_counter`."""

    started: float
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    ttft: float = 0.0
    itls: list[float] = field(default_factory=list)
    text: str = ""
    error: str = ""  # why it failed, if it has

    @property
    def ok(self) -> bool:
        return not self.error

    @property
    def e2el(self) -> float:
        """From sending to the last event."""
        return self.ttft + sum(self.itls)

    @property
    def tpot(self) -> float | None:
        """Seconds for each token after the first; None if there is only one."""
        if self.num_output_tokens < 2:
            return None
        return sum(self.itls) / (self.num_output_tokens - 1)


class _Delta(msgspec.Struct):
    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[msgspec.Raw] | None = None

    @property
    def text(self) -> str:
        return self.content or self.reasoning_content or self.reasoning or ""

    @property
    def opens(self) -> bool:
        """Whether it only says who speaks, which servers send before there is a token."""
        return self.role is not None and not self.text and not self.tool_calls


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None

    @property
    def is_token(self) -> bool:
        return self.finish_reason is not None or self.delta is None or not self.delta.opens


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = 0


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None  # servers differ in its form


_decode = msgspec.json.Decoder(_Chunk).decode


class StreamWatch:
    """Fed with the pieces of one answer's body; `measured` is complete once `end` was called."""

    def __init__(self, measured: Measured) -> None:
        self.measured = measured
        self._splitter = EventSplitter()
        self._last = measured.started
        self._texts: list[str] = []  # of each event, but a last one without text
        self._has_begun = False
        self._is_done = False

    def feed(self, data: bytes) -> None:
        now = time.perf_counter()
        for event in self._splitter.feed(data):
            if event == DONE:
                self._is_done = True
                continue
            chunk = _decode(event)
            if chunk.choices and chunk.choices[0].is_token:
                self._arrived(now, chunk.choices[0])
            if chunk.usage is not None:
                if chunk.usage.prompt_tokens is not None:
                    self.measured.num_prompt_tokens = chunk.usage.prompt_tokens
                self.measured.num_output_tokens = chunk.usage.completion_tokens or 0
            if chunk.error is not None:
                self.measured.error = str(chunk.error)

    def end(self) -> None:
        """Complete `measured`; to be called when the body has ended."""
        measured = self.measured
        measured.text = "".join(self._texts)
        if not measured.num_output_tokens:  # a server without usage: an event is a token
            measured.num_output_tokens = len(self._texts)
        if measured.error:
            return
        if not self._has_begun or not measured.num_output_tokens:
            measured.error = "the answer has no text"
        elif not self._is_done:
            measured.error = "the stream ended without [DONE]"

    def _arrived(self, now: float, choice: _Choice) -> None:
        if self._has_begun:
            self.measured.itls.append(now - self._last)
        else:
            self._has_begun = True
            self.measured.ttft = now - self.measured.started
        self._last = now
        text = choice.text if choice.delta is None else choice.delta.text
        if text or choice.finish_reason is None:
            self._texts.append(text or "")
