"""Splits the text of one request's answers into reasoning, tool calls and content.

Whole answers and streams are parsed by the same code. Knows nothing about the forms in which the
APIs return the parts.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from quire.chat_template import text_of
from quire.prompts import ParsedPrompt
from quire.reasoning import (
    NoReasoning,
    Opening,
    Preamble,
    Reasoning,
    ReasoningEvent,
    ReasoningParser,
)
from quire.sampling_params import SamplingParams
from quire.server.answer_formats import AnswerFormats
from quire.server.protocol.chat import ChatCompletionRequest
from quire.server.tool_choice import ToolUse, chosen_name, no_parser, tool_use
from quire.structured import GrammarSpec
from quire.tools import (
    CallArguments,
    CallBegin,
    CallBegins,
    CallEnd,
    Content,
    ContentOnly,
    Event,
    ToolParser,
    Tools,
)
from quire.tools.constraint import MustCall, call_text_of, constrained_parser, constraint
from quire.tools.json_text import loaded

Piece = Reasoning | Content | CallBegin | CallArguments | CallEnd


@dataclass(slots=True)
class ToolCall:
    """A tool call found in an answer."""

    id: str
    name: str
    arguments: str = ""  # JSON as the model wrote it, so possibly incomplete or invalid
    namespace: str | None = None  # of the function, in APIs that have namespaces


class Answer:
    """The parts of one answer in order; adjacent texts of the same kind are merged."""

    def __init__(self) -> None:
        self._parts: list[Reasoning | Content | ToolCall] = []
        self._texts: list[str] = []  # pieces of the last part's text, not yet joined

    @property
    def parts(self) -> list[Reasoning | Content | ToolCall]:
        self._close()
        return self._parts

    @parts.setter
    def parts(self, parts: list[Reasoning | Content | ToolCall]) -> None:
        self._parts, self._texts = parts, []

    @property
    def ends_in_call(self) -> bool:
        """Whether the last part is a call whose arguments are not valid JSON (yet)."""
        last = self.parts[-1] if self.parts else None
        return isinstance(last, ToolCall) and loaded(last.arguments) is None

    @property
    def ends_in_whole_call(self) -> bool:
        """Whether the last part is a call whose arguments are valid JSON."""
        return bool(self.parts and isinstance(self.parts[-1], ToolCall)) and not self.ends_in_call

    def add(self, piece: Piece) -> None:
        if isinstance(piece, CallBegin):
            self._open(ToolCall(piece.id or "", piece.name))
        elif isinstance(piece, CallArguments):
            assert self._parts and isinstance(self._parts[-1], ToolCall)
            self._texts.append(piece.json_fragment)
        elif isinstance(piece, (Reasoning, Content)):
            if not self._parts or type(self._parts[-1]) is not type(piece):
                self._open(type(piece)(""))
            self._texts.append(piece.text)

    def _open(self, part: Reasoning | Content | ToolCall) -> None:
        self._close()
        self._parts.append(part)

    def _close(self) -> None:
        """Join the pieces of the last part's text: once per part, not at each piece."""
        if not self._texts:
            return
        last, text = self._parts[-1], "".join(self._texts)
        self._texts = []
        if isinstance(last, ToolCall):
            last.arguments += text
        else:
            self._parts[-1] = type(last)(last.text + text)

    @property
    def reasoning(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, Reasoning))

    @property
    def content(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, Content))

    @property
    def calls(self) -> list[ToolCall]:
        return [part for part in self.parts if isinstance(part, ToolCall)]


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerForm:
    """How the answers of one request are parsed; with the defaults, all text is content."""

    formats: AnswerFormats = field(default_factory=AnswerFormats)
    tools: Tools | None = None  # those that may be called
    must: MustCall | None = None
    opening: Opening = Opening.UNKNOWN
    is_parallel: bool = True
    shows_reasoning: bool = True

    @classmethod
    def of(
        cls, formats: AnswerFormats, chat: ChatCompletionRequest, prompt: ParsedPrompt
    ) -> AnswerForm:
        """The form for a chat request and its rendered prompt; 400 if tools cannot be called."""
        use = tool_use(chat.tools, chat.tool_choice)
        tools = None if use is ToolUse.NEVER else Tools.of(chat.tools)
        if use is ToolUse.MAY and formats.tools is None:
            raise no_parser()
        form = cls(
            formats=formats,
            tools=tools,
            opening=_opening(formats, chat, prompt),
            is_parallel=chat.parallel_tool_calls is not False,
            shows_reasoning=chat.include_reasoning is not False,
        )
        if tools is None or use is ToolUse.MAY:
            return form
        return form.forced(chat)

    @property
    def is_plain(self) -> bool:
        """Whether text is passed on unparsed."""
        return self.tools is None and self.formats.reasoning is None

    @property
    def has_text(self) -> bool:
        """Whether answers may have content, possibly empty: a forced call leaves no room for it."""
        return self.must is None

    @property
    def is_named(self) -> bool:
        return self.must is not None and self.must.is_named

    @property
    def hides_tokens(self) -> bool:
        """Whether token ids and log-probabilities are left out, as they would reveal reasoning that
        the request hides."""
        return self.formats.reasoning is not None and not self.shows_reasoning

    @property
    def grammar(self) -> GrammarSpec | None:
        """The grammar of a forced call; None if no call is forced."""
        return None if self.must is None else constraint(self.must)

    @property
    def possible_calls(self) -> GrammarSpec | None:
        """The grammar of optional calls; None if there are none, or if calls begin like JSON, so
        that a grammar cannot tell them from JSON content."""
        text = call_text_of(self.formats.tools, self.formats.special_tokens)
        if self.tools is None or text is None or text.begin.startswith(("{", "[")):
            return None
        return constraint(MustCall(tools=self.tools, is_parallel=self.is_parallel, call_text=text))

    @property
    def schema_places(self) -> list[str]:
        """The fields of a chat request that hold the schemas of `grammar` or `possible_calls`, in
        the order in which the grammar has them."""
        if self.tools is None:
            return []
        index = {name: i for i, name in enumerate(self.tools.schemas)}
        called = self.tools if self.must is None else self.must.tools
        return [f"tools[{index[name]}].function.parameters" for name in called.schemas]

    def forced(self, chat: ChatCompletionRequest) -> AnswerForm:
        """This form for a request that must call a tool: any, or the one that it names."""
        assert self.tools is not None
        name = chosen_name(chat.tool_choice)
        must = MustCall(
            tools=self.tools if name is None else Tools({name: self.tools.schemas[name]}),
            is_named=name is not None,
            is_parallel=self.is_parallel,
            call_text=call_text_of(self.formats.tools, self.formats.special_tokens),
        )
        return replace(self, must=must)

    def with_marks(self, params: SamplingParams) -> SamplingParams:
        """The parameters, with special tokens left in the text if a parser looks for them."""
        formats = self.formats
        marks = formats.reasoning.marks if formats.reasoning is not None else ()
        if self.tools is not None and formats.tools is not None:
            marks += formats.tools.marks
        if params.skip_special_tokens and formats.are_special(marks):
            params = params.clone()
            params.skip_special_tokens = False
        return params

    def reader(self) -> AnswerReader:
        """A new reader for the text of one completion."""
        return AnswerReader(self)

    def read(self, text: str) -> Answer:
        """Parse the whole text of one completion."""
        reader = self.reader()
        reader.feed(text)
        reader.finish()
        return reader.answer

    def new_call_id(self) -> str:
        format = self.formats.tools
        if format is not None and format.id_length is not None:
            return uuid.uuid4().hex[: format.id_length]
        return f"chatcmpl-tool-{uuid.uuid4().hex}"

    def reasoning_parser(self) -> ReasoningParser:
        format = self.formats.reasoning
        return NoReasoning() if format is None else format.parser(self.opening, self._in_thought())

    def _in_thought(self) -> CallBegins:
        """Marks of calls that may begin before the reasoning has ended; none for a forced call,
        whose grammar applies only after it."""
        if self.tools is None or self.must is not None or self.formats.tools is None:
            return CallBegins()
        return self.formats.tools.in_thought

    def tool_parser(self) -> ToolParser:
        if self.tools is None:
            return ContentOnly()
        if self.must is not None:
            return constrained_parser(self.must, self.formats.tools)
        assert self.formats.tools is not None
        return self.formats.tools.parser(self.tools)


class AnswerReader:
    """Reads the text of one completion; ``answer`` is what it has read so far."""

    def __init__(self, form: AnswerForm) -> None:
        self.answer = Answer()
        self._form = form
        self._reasoning = form.reasoning_parser()
        self._tools = form.tool_parser()
        self._num_before = 0  # calls found by the tool parsers before this one
        self._num_calls = 0
        self._is_in_call = False
        self._ids: set[str] = set()  # ids of the calls so far

    def feed(self, text: str) -> list[Piece]:
        return self._pieces(self._reasoning.feed(text))

    def finish(self) -> list[Piece]:
        return [*self._pieces(self._reasoning.finish()), *self._read(self._tools.finish())]

    def _pieces(self, events: list[ReasoningEvent]) -> list[Piece]:
        pieces: list[Piece] = []
        for event in events:
            if isinstance(event, Reasoning):
                pieces += [*self._end_call(), *self._shown([event])]
            elif isinstance(event, Preamble) and self._form.must is not None:
                pieces += [*self._end_call(), *self._shown([Content(event.text)])]
            else:
                pieces += self._read(self._tools.feed(event.text))
        return pieces

    def _end_call(self) -> list[Piece]:
        """End a call that other text interrupts; a new tool parser reads what follows."""
        if not self._is_in_call:
            return []
        pieces = self._read(self._tools.finish())
        self._tools = self._form.tool_parser()
        self._num_before, self._is_in_call = self._num_calls, False
        return pieces

    def _read(self, events: list[Event]) -> list[Piece]:
        """Record the tool parser's events, with calls numbered across parsers."""
        pieces: list[Piece] = []
        for event in events:
            if isinstance(event, (CallBegin, CallArguments, CallEnd)):
                event = replace(event, index=self._num_before + event.index)
            if isinstance(event, CallBegin):
                self._num_calls += 1
            if isinstance(event, (CallBegin, CallEnd)):
                self._is_in_call = isinstance(event, CallBegin)
            pieces.append(event)
        return self._shown(pieces)

    def _shown(self, pieces: Sequence[Piece]) -> list[Piece]:
        kept = [self._with_id(piece) for piece in pieces if self._is_kept(piece)]
        for piece in kept:
            self.answer.add(piece)
        if self._form.shows_reasoning:
            return kept
        return [piece for piece in kept if not isinstance(piece, Reasoning)]

    def _is_kept(self, piece: Piece) -> bool:
        if isinstance(piece, (Reasoning, Content)):
            return True
        form = self._form
        return piece.index == 0 or (form.is_parallel and not form.is_named)

    def _with_id(self, piece: Piece) -> Piece:
        """Give a call an id: the model's own, unless it is missing or already used."""
        if not isinstance(piece, CallBegin):
            return piece
        if piece.id is None or piece.id in self._ids:
            piece = replace(piece, id=self._form.new_call_id())
        self._ids.add(piece.id or "")
        return piece


def _opening(formats: AnswerFormats, chat: ChatCompletionRequest, prompt: ParsedPrompt) -> Opening:
    if formats.reasoning is None:
        return Opening.UNKNOWN
    content = chat.messages[-1].content if chat.continue_final_message else None
    begun = None if content is None else text_of(content)
    return formats.reasoning.opening_of_chat(prompt.text or "", begun)
