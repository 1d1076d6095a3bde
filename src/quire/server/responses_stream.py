"""The events of a Responses stream, numbered, as outputs come from the engine."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

from quire.outputs import CompletionOutput
from quire.reasoning import Reasoning
from quire.server.answer_form import Piece, ToolCall
from quire.server.errors import HTTPError
from quire.server.generation import Generation
from quire.server.responses_items import Part, begun_item, content_part, item, item_id
from quire.server.responses_view import Json, ResponseView
from quire.server.sse import event
from quire.tools import CallArguments, CallBegin, CallEnd, Content


class ResponseStream:
    """One stream: a response with items, of which only the last one grows."""

    def __init__(self, generation: Generation, view: ResponseView) -> None:
        self._generation = generation
        self._view = view
        self._next_number = 0
        self._reader = replace(view.form, shows_reasoning=True).reader()
        self._logprobs: list[Json] = []
        self._items: list[Json] = []  # the finished ones
        self._open: Part | None = None  # the item that grows, as it began
        self._texts: list[str] = []  # of the open item so far
        self._is_behind_hidden = False  # a hidden thought has come since

    async def run(self) -> AsyncGenerator[bytes, None]:
        last: CompletionOutput | None = None
        async with contextlib.aclosing(self._generation.outputs()) as outputs:
            async for _, output in outputs:
                # Sent only with the first output: an error before it still has its own status.
                data = self._start() if last is None else b""
                for last in output.outputs:
                    data += self._news(last)
                if data:
                    yield data
        assert last is not None
        yield self._end(last)

    def failed(self, path: str, error: HTTPError) -> bytes:
        """The last events of a stream that has failed."""
        start = b""
        if self._next_number == 0:
            start = self._state("created", self._view.running())
        elif self._open is not None:
            self._items.append(self._item("incomplete"))
        return start + self._state("failed", self._view.failed(error.message, self._items))

    def _start(self) -> bytes:
        running = self._view.running()
        return self._state("created", running) + self._state("in_progress", running)

    def _news(self, one: CompletionOutput) -> bytes:
        """The events of an output; none while its text is held back, such as half a character."""
        logprobs = self._view.logprobs(one)
        self._logprobs += logprobs
        pieces = self._reader.feed(one.text)
        if logprobs and not pieces:
            pieces = [Content("")]
        return b"".join(self._piece(piece, logprobs) for piece in pieces)

    def _piece(self, piece: Piece, logprobs: list[Json]) -> bytes:
        if isinstance(piece, CallBegin):
            return self._begin(self._view.tools.own(ToolCall(piece.id or "", piece.name)))
        if isinstance(piece, CallArguments):
            self._texts.append(piece.json_fragment)
            return self._event(
                "function_call_arguments.delta", **self._place(), delta=piece.json_fragment
            )
        if isinstance(piece, CallEnd):
            return b""
        if isinstance(piece, Reasoning) and not self._view.form.shows_reasoning:
            self._is_behind_hidden = True
            return b""
        begin = b""
        if type(self._open) is not type(piece) or self._is_behind_hidden:
            begin = self._begin(type(piece)(""))
        self._texts.append(piece.text)
        return begin + self._text_delta(piece, logprobs)

    def _text_delta(self, piece: Reasoning | Content, logprobs: list[Json]) -> bytes:
        place = {**self._place(), "content_index": 0, "delta": piece.text}
        if isinstance(piece, Reasoning):
            return self._event("reasoning_text.delta", **place)
        return self._event("output_text.delta", **place, logprobs=logprobs)

    def _begin(self, part: Part) -> bytes:
        end = self._end_item("completed") if self._open is not None else b""
        self._open, self._texts, self._is_behind_hidden = part, [], False
        place = self._place()
        added = begun_item(part, place["item_id"])
        data = self._event("output_item.added", output_index=place["output_index"], item=added)
        if not isinstance(part, ToolCall):
            own = {**place, "content_index": 0, "part": content_part(part, [])}
            data += self._event("content_part.added", **own)
        return end + data

    def _end_item(self, status: str) -> bytes:
        part, place = self._grown(), self._place()
        if isinstance(part, ToolCall):
            said = {"name": part.name, "arguments": part.arguments}
            data = self._event("function_call_arguments.done", **place, **said)
        else:
            place["content_index"] = 0
            if isinstance(part, Reasoning):
                data = self._event("reasoning_text.done", **place, text=part.text)
            else:
                logprobs = {"logprobs": self._logprobs}
                data = self._event("output_text.done", **place, text=part.text, **logprobs)
            whole = content_part(part, self._logprobs)
            data += self._event("content_part.done", **place, part=whole)
        done = self._item(status)
        index = len(self._items)
        self._items.append(done)
        self._open = None
        return data + self._event("output_item.done", output_index=index, item=done)

    def _end(self, last: CompletionOutput) -> bytes:
        self._view.refuse_broken_off(last)
        data = b"".join(self._piece(piece, []) for piece in self._reader.finish())
        answer = self._reader.answer
        self._view.count_reasoning(last, answer)
        self._view.hide_thoughts(answer)
        if self._open is None and self._view.form.has_text:
            data += self._begin(Content(""))
        if self._open is not None:
            data += self._end_item(self._view.item_status(last, answer))
        response = self._view.ended(last, self._items)
        # The API has no event for a cancelled response.
        state = "completed" if response["status"] == "completed" else "incomplete"
        return data + self._state(state, response)

    def _item(self, status: str) -> Json:
        """The open item in its final form."""
        own_id, encodes = self._place()["item_id"], self._view.encodes_thoughts
        return item(self._grown(), own_id, status, self._logprobs, encodes_thoughts=encodes)

    def _grown(self) -> Part:
        """The open part with all of its text so far."""
        assert self._open is not None
        text = "".join(self._texts)
        if isinstance(self._open, ToolCall):
            return replace(self._open, arguments=text)
        return type(self._open)(text)

    def _place(self) -> Json:
        """The id and index of the open item."""
        assert self._open is not None
        index = len(self._items)
        id = item_id(self._open, self._view.request_id, index)
        return {"item_id": id, "output_index": index}

    def _state(self, name: str, response: Json) -> bytes:
        return self._event(name, response=response)

    def _event(self, name: str, /, **content: Any) -> bytes:
        kind = f"response.{name}"
        numbered = {"type": kind, "sequence_number": self._next_number, **content}
        self._next_number += 1
        return b"event: %b\n%b" % (kind.encode(), event(numbered))
