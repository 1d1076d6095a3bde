"""The events of a Responses stream, numbered, as outputs come from the engine."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from quire.outputs import CompletionOutput
from quire.server.errors import HTTPError
from quire.server.generation import Generation
from quire.server.responses_view import Json, ResponseView
from quire.server.sse import event


class ResponseStream:
    """One stream: the response, in it one message, in that one part, which grows."""

    def __init__(self, generation: Generation, view: ResponseView) -> None:
        self._generation = generation
        self._view = view
        self._next_number = 0
        self._text = ""
        self._logprobs: list[Json] = []
        self._place = {"item_id": view.item_id, "output_index": 0, "content_index": 0}

    async def run(self) -> AsyncGenerator[bytes, None]:
        last: CompletionOutput | None = None
        async with contextlib.aclosing(self._generation.outputs()) as outputs:
            async for _, output in outputs:
                # The start leaves with the first output: until then an error has a status.
                data = self._start() if last is None else b""
                for last in output.outputs:
                    data += self._delta(last)
                if data:
                    yield data
        assert last is not None
        yield self._end(last)

    def failed(self, path: str, error: HTTPError) -> bytes:
        """The end of a stream that cannot go on."""
        start, output = b"", []
        if self._next_number == 0:
            start = self._state("created", self._view.running())
        else:
            part = self._view.part(self._text, self._logprobs)
            output = [self._view.item("incomplete", [part])]
        return start + self._state("failed", self._view.failed(error.message, output))

    def _start(self) -> bytes:
        running = self._view.running()
        item = self._view.item("in_progress", [])
        return (
            self._state("created", running)
            + self._state("in_progress", running)
            + self._event("output_item.added", output_index=0, item=item)
            + self._event("content_part.added", **self._place, part=self._view.part("", []))
        )

    def _delta(self, one: CompletionOutput) -> bytes:
        """Nothing, if there is nothing to see yet: half a character, or a stop string's start."""
        logprobs = self._view.logprobs(one)
        if not one.text and not logprobs:
            return b""
        self._text += one.text
        self._logprobs += logprobs
        return self._event("output_text.delta", **self._place, delta=one.text, logprobs=logprobs)

    def _end(self, last: CompletionOutput) -> bytes:
        part = self._view.part(self._text, self._logprobs)
        item = self._view.ended_item(last, part)
        done = {**self._place, "text": self._text, "logprobs": self._logprobs}
        response = self._view.ended(last, item)
        # No event is named after a response that was cancelled.
        state = "completed" if response["status"] == "completed" else "incomplete"
        return (
            self._event("output_text.done", **done)
            + self._event("content_part.done", **self._place, part=part)
            + self._event("output_item.done", output_index=0, item=item)
            + self._state(state, response)
        )

    def _state(self, name: str, response: Json) -> bytes:
        return self._event(name, response=response)

    def _event(self, name: str, **content: Any) -> bytes:
        kind = f"response.{name}"
        numbered = {"type": kind, "sequence_number": self._next_number, **content}
        self._next_number += 1
        return b"event: %b\n%b" % (kind.encode(), event(numbered))
