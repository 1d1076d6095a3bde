"""The response object of the Responses API and its states."""

from __future__ import annotations

import time
from typing import Any

from quire.outputs import CompletionOutput
from quire.reasoning import Reasoning
from quire.server.answer_form import Answer, ToolCall
from quire.server.completion_view import names_tokens_by_id
from quire.server.errors import broken_off
from quire.server.intake import Started
from quire.server.logprobs import chat_logprobs
from quire.server.protocol.responses import ResponsesRequest
from quire.server.reasoning_tokens import ReasoningTokens
from quire.server.responses_items import items
from quire.server.responses_tools import ResponseTools
from quire.server.state import Phase, ServerState
from quire.server.usage import Usage
from quire.tools import Content

Json = dict[str, Any]


class ResponseView:
    """One response, from its first to its last state."""

    def __init__(self, state: ServerState, body: ResponsesRequest, started: Started) -> None:
        self.request_id = started.request_id
        self.form = started.form
        self._state = state
        self._body = body
        self._thoughts = ReasoningTokens(state, started.form, started.generation.usage)
        self._vocabulary = state.require_engine().front.vocabulary
        self._as_token_ids = names_tokens_by_id(body.return_tokens_as_token_ids, state)
        self._usage = started.generation.usage
        self._fixed = _fixed_fields(body, started)
        self.tools = ResponseTools(body.tools)
        self.encodes_thoughts = body.wants_encoded_thoughts

    def running(self) -> Json:
        """The response before there is any output."""
        return self._response("in_progress", [])

    def whole(self, one: CompletionOutput) -> Json:
        """The finished response, of a request that is not streamed."""
        answer = self.form.read(one.text)
        self.count_reasoning(one, answer)
        self.hide_thoughts(answer)
        if not answer.parts and self.form.has_text:
            answer.parts = [Content("")]
        answer.parts = [
            self.tools.own(part) if isinstance(part, ToolCall) else part for part in answer.parts
        ]
        status = self.item_status(one, answer)
        output = items(
            answer,
            self.request_id,
            status,
            self.logprobs(one),
            encodes_thoughts=self.encodes_thoughts,
        )
        return self.ended(one, output)

    def hide_thoughts(self, answer: Answer) -> None:
        """Drop reasoning that is not to be shown; the texts around it stay separate parts."""
        if not self.form.shows_reasoning:
            answer.parts = [part for part in answer.parts if not isinstance(part, Reasoning)]

    def refuse_broken_off(self, one: CompletionOutput) -> None:
        """503 for an answer that the server's shutdown aborted, so that clients retry."""
        if one.finish_reason == "abort" and self._state.phase is Phase.DRAINING:
            raise broken_off()

    def ended(self, one: CompletionOutput, output: list[Json]) -> Json:
        """The response after the last output; ``one`` says how it ended."""
        status = _status(one)
        details = {"reason": "max_output_tokens"}  # also for a time limit: clients fail on null
        return self._response(
            status,
            output,
            completed_at=int(time.time()) if status == "completed" else None,
            incomplete_details=details if status == "incomplete" else None,
            usage=usage_dict(self._usage),
        )

    def failed(self, message: str, output: list[Json]) -> Json:
        """The response after an error, with the output until then."""
        error = {"code": "server_error", "message": message}
        return self._response("failed", output, error=error, usage=usage_dict(self._usage))

    def item_status(self, one: CompletionOutput, answer: Answer) -> str:
        """The last item's status; what was cut off after a complete call is not an item. A stop
        string ends a text, but breaks off a call."""
        is_broken_off = isinstance(one.stop_reason, str) and answer.ends_in_call
        is_whole = _status(one) == "completed" and not is_broken_off
        is_whole = is_whole or answer.ends_in_whole_call
        return "completed" if is_whole else "incomplete"

    def count_reasoning(self, one: CompletionOutput, answer: Answer) -> None:
        """Add the answer's reasoning tokens to the usage."""
        self._thoughts.add(one, answer)

    def logprobs(self, one: CompletionOutput) -> list[Json]:
        """The logprobs of this output's tokens; empty unless the body asks for them."""
        if not self._body.wants_logprobs:
            return []
        return chat_logprobs(
            one.token_ids,
            one.logprobs or [],
            self._body.top_logprobs or 0,
            self._vocabulary,
            self._as_token_ids,
        )["content"]

    def _response(self, status: str, output: list[Json], **more: Any) -> Json:
        unset = {"completed_at": None, "error": None, "incomplete_details": None, "usage": None}
        return {**self._fixed, "status": status, "output": output, **unset, **more}


def usage_dict(usage: Usage) -> Json:
    """The usage under this API's names."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": usage.total_tokens,
    }


def _status(one: CompletionOutput) -> str:
    return {"stop": "completed", "abort": "cancelled"}.get(one.finish_reason or "", "incomplete")


def _fixed_fields(body: ResponsesRequest, started: Started) -> Json:
    """The request's settings, with defaults for those it does not give."""
    params = started.generation.wanted.params
    format = body.text and body.text.format
    text = {"format": format or {"type": "text"}, "verbosity": "medium"}
    effort = body.reasoning and body.reasoning.effort
    return {
        "id": f"resp_{started.request_id.removeprefix('resp_')}",  # a client's may have the prefix
        "object": "response",
        "created_at": int(time.time()),
        "model": started.model,
        "background": False,
        "conversation": None,
        "frequency_penalty": params.frequency_penalty,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "presence_penalty": params.presence_penalty,
        "previous_response_id": None,
        "prompt": None,
        "prompt_cache_key": body.prompt_cache_key,
        "prompt_cache_retention": body.prompt_cache_retention,
        "reasoning": {"effort": effort, "summary": None},
        "safety_identifier": body.safety_identifier,
        "service_tier": "default",
        "store": False,
        "temperature": params.temperature,
        "text": text,
        "tool_choice": body.tool_choice or "auto",
        "tools": body.tools or [],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": params.top_p,
        "truncation": body.truncation or "disabled",
        "user": body.user,
    }
