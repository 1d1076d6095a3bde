"""The choices of a chat answer: message, tool calls, reasoning and log-probabilities."""

from __future__ import annotations

from typing import Any

from quire.chat_template import text_of
from quire.outputs import CompletionOutput, RequestOutput
from quire.prompts import ParsedPrompt
from quire.reasoning import Reasoning
from quire.server.answer_form import Answer, AnswerForm, Piece
from quire.server.completion_view import names_tokens_by_id
from quire.server.logprobs import chat_logprobs
from quire.server.protocol.chat import ChatCompletionRequest
from quire.server.reasoning_tokens import ReasoningTokens
from quire.server.state import ServerState
from quire.server.usage import Usage
from quire.tools import CallArguments, CallBegin, CallEnd, Content

Json = dict[str, Any]


class ChatView:
    """Renders outputs as the choices that one chat request asks for."""

    def __init__(
        self, state: ServerState, body: ChatCompletionRequest, form: AnswerForm, usage: Usage
    ) -> None:
        self.role = state.args.response_role
        if body.add_generation_prompt is False or body.continue_final_message:
            self.role = body.messages[-1].role if body.messages else self.role
        self.echo = _echo(body, self.role)
        self.form = form
        self.reasoning_tokens = ReasoningTokens(state, form, usage)
        self.has_logprobs = bool(body.logprobs) and not form.hides_tokens
        self.has_token_ids = bool(body.return_token_ids) and not form.hides_tokens
        self._body = body
        self._vocabulary = state.require_engine().front.vocabulary
        self._as_token_ids = names_tokens_by_id(body.return_tokens_as_token_ids, state)

    def prompt_facts(self, prompt: ParsedPrompt) -> Json:
        """The prompt's token ids and text if requested; the text that is left if it was cut."""
        body, token_ids, text = self._body, prompt.token_ids or [], None
        if body.return_prompt_text:
            text = prompt.text
            if text is None and self._vocabulary is not None:
                text = self._vocabulary.decode(token_ids)
        return {
            "prompt_token_ids": token_ids if body.return_token_ids else None,
            "prompt_text": text,
        }

    def choices(self, output: RequestOutput) -> list[Json]:
        return [self._choice(one) for one in output.outputs]

    def logprobs(self, one: CompletionOutput) -> Json | None:
        if not self.has_logprobs:
            return None
        return chat_logprobs(
            one.token_ids,
            one.logprobs or [],
            self._body.top_logprobs or 0,
            self._vocabulary,
            self._as_token_ids,
        )

    def message(self, answer: Answer) -> Json:
        """The message of a whole answer; ``tool_calls`` only if there are any, and reasoning only
        if the model has a format for it."""
        content: str | None = self.echo + answer.content
        reasoning = answer.reasoning if self.form.shows_reasoning else ""
        if not content and (answer.calls or reasoning) and self.form.has_text:
            content = None
        message: Json = {
            "role": self.role,
            "content": content,
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
        }
        if self.form.formats.reasoning is not None:
            message |= _reasoning(reasoning or None)
        if answer.calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in answer.calls
            ]
        return message

    def finish_reason(self, one: CompletionOutput, answer: Answer) -> str | None:
        """The engine's, but "tool_calls" in place of "stop" for an answer with calls, unless the
        request named the function, or its own stop string or token cut the last call short."""
        is_asked = isinstance(one.stop_reason, str) or one.stop_reason in (
            self._body.stop_token_ids or ()
        )
        is_broken_off = is_asked and answer.ends_in_call
        has_calls = bool(answer.calls) and not is_broken_off and not self.form.is_named
        return "tool_calls" if has_calls and one.finish_reason == "stop" else one.finish_reason

    def _choice(self, one: CompletionOutput) -> Json:
        answer = self.form.read(one.text)
        self.reasoning_tokens.add(one, answer)
        return {
            "index": one.index,
            "message": self.message(answer),
            "logprobs": self.logprobs(one),
            "finish_reason": self.finish_reason(one, answer),
            "stop_reason": one.stop_reason,
            "token_ids": one.token_ids if self.has_token_ids else None,
        }


# Pieces of these kinds, in this order, may share a delta.
_RANKS = (Reasoning, Content, CallBegin, CallArguments)


def deltas(pieces: list[Piece]) -> list[Json]:
    """The pieces in as few deltas as keep their order; arguments never share the delta that begins
    their call."""
    found: list[Json] = []
    last_rank = len(_RANKS)  # so that the first piece begins a delta
    for piece in pieces:
        if isinstance(piece, CallEnd):
            continue
        rank = _RANKS.index(type(piece))
        if rank <= last_rank or isinstance(piece, CallArguments):
            found.append({})
        last_rank = rank
        found[-1] |= _delta(piece)
    return found


def _delta(piece: Piece) -> Json:
    if isinstance(piece, CallBegin):
        function = {"name": piece.name, "arguments": ""}
        call = {"index": piece.index, "id": piece.id, "type": "function", "function": function}
        return {"tool_calls": [call]}
    if isinstance(piece, CallArguments):
        call = {"index": piece.index, "function": {"arguments": piece.json_fragment}}
        return {"tool_calls": [call]}
    if isinstance(piece, Reasoning):
        return _reasoning(piece.text)
    assert not isinstance(piece, CallEnd)
    return {"content": piece.text}


def _reasoning(text: str | None) -> Json:
    """The reasoning under its current name and the older one, which some clients still read."""
    return {"reasoning": text, "reasoning_content": text}


def _echo(body: ChatCompletionRequest, role: str) -> str:
    """The text of the last message if it is to be echoed and has the answer's role, else ""."""
    last = body.messages[-1] if body.messages else None
    if not body.echo or last is None or last.role != role:
        return ""
    return text_of(last.content)
