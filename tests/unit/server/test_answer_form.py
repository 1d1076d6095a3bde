"""Thoughts, calls and content of answers that the bundled model would not write."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any, cast

import pytest
from pydantic_core import from_json

from quire.chat_template import ChatRenderer
from quire.engine.async_engine import AsyncLLM
from quire.outputs import CompletionOutput, RequestOutput
from quire.prompts import ParsedPrompt
from quire.reasoning import Opening, Reasoning, reasoning_format
from quire.sampling_params import SamplingParams
from quire.server.answer_form import AnswerForm, ToolCall
from quire.server.answer_formats import AnswerFormats, check_formats
from quire.server.args import ServerArgs
from quire.server.chat_stream import ChatStream
from quire.server.chat_view import ChatView
from quire.server.envelope import Envelope
from quire.server.errors import HTTPError
from quire.server.generation import Generation, Wanted
from quire.server.intake import Started
from quire.server.messages_stream import message_events
from quire.server.messages_view import MessageView
from quire.server.protocol.chat import ChatCompletionRequest
from quire.server.protocol.responses import ResponsesRequest
from quire.server.responses_input import check_logprobs
from quire.server.responses_stream import ResponseStream
from quire.server.responses_view import ResponseView
from quire.server.state import ServerState
from quire.server.usage import StreamUsage, Usage
from quire.tools import CallEnd, Content, Tools, tool_format
from tests.fakes.server import events_of, in_process_client, ready_state
from tests.fakes.weather import TOOL

THOUGHT = "I need the weather."
TEXT = (
    f"<think>{THOUGHT}</think>\n\nOne moment.\n"
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
)
FORMATS = AnswerFormats(tools=tool_format("hermes"), reasoning=reasoning_format("qwen3"))
FORM = AnswerForm(formats=FORMATS, tools=Tools.of([TOOL]))
PARTS = [{"type": "text", "text": "<think>One"}, {"type": "text", "text": "two"}]
BODY = {"messages": [{"role": "user", "content": "x"}], "tools": [TOOL]}


class Spoken:
    """A generation that says a text, a few characters at a time."""

    def __init__(self, text: str = TEXT, size: int = 3, reason: str = "stop") -> None:
        self.usage = Usage(prompt_tokens=3)
        self.wanted = Wanted(prompts=[ParsedPrompt(text="x")], params=SamplingParams())
        self._reason = reason
        self._pieces = [text[i : i + size] for i in range(0, len(text), size)]

    async def outputs(self) -> AsyncGenerator[tuple[int, RequestOutput], None]:
        for i, text in enumerate(self._pieces):
            is_last = i == len(self._pieces) - 1
            reason = self._reason if is_last else None
            one = CompletionOutput(0, text, [5], None, None, finish_reason=reason)
            yield 0, RequestOutput("r", None, None, None, [one], finished=is_last)


WHOLE = CompletionOutput(0, TEXT, [5], None, None, finish_reason="stop")


def spoken(**kwargs: Any) -> Generation:
    return cast(Generation, Spoken(**kwargs))


def started(generation: Generation, form: AnswerForm = FORM) -> Started:
    return Started(generation=generation, model="m", request_id="r", headers={}, form=form)


def chat_view(state: ServerState, generation: Generation, form: AnswerForm = FORM) -> ChatView:
    body = ChatCompletionRequest.model_validate(BODY)
    return ChatView(state, body, form, generation.usage)


async def chat_deltas(state: ServerState, form: AnswerForm) -> tuple[list[Any], Usage]:
    generation = spoken()
    body = ChatCompletionRequest.model_validate({**BODY, "stream": True})
    envelope = Envelope(id="i", model="m", fingerprint="f")
    view = ChatView(state, body, form, generation.usage)
    usage = StreamUsage(at_end=False, on_every_chunk=False)
    stream = ChatStream(generation, envelope, view, usage)
    text = b"".join([data async for data in stream.run()]).decode()
    return [event["choices"][0] for event in events_of(text)[:-1]], generation.usage


def test_an_answer_in_parts() -> None:
    thought, content, call = FORM.read(TEXT).parts
    assert (thought, content) == (Reasoning(THOUGHT), Content("\n\nOne moment.\n"))
    assert isinstance(call, ToolCall)
    assert (call.name, call.arguments) == ("get_weather", '{"city": "Oslo"}')


def test_parts_are_whole_whenever_they_are_looked_at() -> None:
    reader = FORM.reader()
    for character in TEXT:
        reader.feed(character)
        assert len(reader.answer.parts) <= 3
    reader.finish()
    thought, content, call = reader.answer.parts
    assert (thought, content) == (Reasoning(THOUGHT), Content("\n\nOne moment.\n"))
    assert isinstance(call, ToolCall) and call.arguments == '{"city": "Oslo"}'


@pytest.mark.parametrize(
    ("text", "stop_reason", "expected"),
    [
        (TEXT, None, "tool_calls"),
        (TEXT, "</tool_call>", "tool_calls"),
        (TEXT[: TEXT.index("Oslo")], "Oslo", "stop"),
        (TEXT[: TEXT.index("Oslo")], 7, "stop"),
        (TEXT[: TEXT.index("Oslo")], 8, "tool_calls"),  # by which the model itself ended
        (TEXT[: TEXT.index('"arguments"')], None, "stop"),
    ],
)
def test_a_stop_string_or_token_within_a_call_does_not_end_for_the_call(
    state: ServerState, text: str, stop_reason: str | int | None, expected: str
) -> None:
    one = CompletionOutput(0, text, [5], None, None, finish_reason="stop", stop_reason=stop_reason)
    output = RequestOutput("r", None, None, None, [one], finished=True)
    body = ChatCompletionRequest.model_validate({**BODY, "stop_token_ids": [7]})
    (choice,) = ChatView(state, body, FORM, spoken().usage).choices(output)
    assert choice["finish_reason"] == expected


def test_a_call_in_a_thought_is_none() -> None:
    text = TEXT.replace("</think>", "") + "</think>Done."
    assert FORM.read(text).calls == []
    assert FORM.read(text).reasoning == text[len("<think>") : text.index("</think>")]
    assert FORM.read(text).content == "Done."


def test_a_call_in_a_thought_that_never_ends_is_one() -> None:
    text = TEXT.replace("</think>", "")
    answer = FORM.read(text)
    assert [call.name for call in answer.calls] == ["get_weather"] and not answer.content
    assert answer.reasoning == text[len("<think>") : text.index("\n<tool_call>")]
    reader = FORM.reader()
    for character in text:
        reader.feed(character)
    reader.finish()
    assert (reader.answer.reasoning, len(reader.answer.calls)) == (answer.reasoning, 1)


def test_only_a_request_that_may_call_finds_calls_in_thoughts() -> None:
    text = TEXT.replace("</think>", "")
    body = ChatCompletionRequest.model_validate({**BODY, "tool_choice": "required"})
    for form in (AnswerForm(formats=FORMATS), FORM.forced(body)):
        answer = form.read(text)
        assert (answer.reasoning, answer.calls) == (text.removeprefix("<think>"), [])


@pytest.mark.parametrize("num_characters", [len(TEXT), TEXT.index("get_weather")])
async def test_before_a_forced_call_there_are_thoughts_and_no_content(
    state: ServerState, num_characters: int
) -> None:
    body = ChatCompletionRequest.model_validate({**BODY, "tool_choice": "required"})
    form = FORM.forced(body)
    text = TEXT.replace("One moment.\n", "")[: num_characters - len("One moment.\n")]
    message = chat_view(state, spoken(), form).message(form.read(text))
    assert (message["reasoning"], message["content"]) == (THOUGHT, "")
    assert ("tool_calls" in message) is (num_characters == len(TEXT))
    one = CompletionOutput(0, text, [5], None, None, finish_reason="length")
    blocks = MessageView(state, started(spoken(), form)).whole(one)["content"]
    assert [block["type"] for block in blocks[:2]] == ["thinking", "tool_use"][: len(blocks)]
    events = form.reader().feed(text)
    assert not any(isinstance(event, Content) for event in events)


ANALYSIS, FINAL = "<|channel|>analysis<|message|>", "<|channel|>final<|message|>"
PREAMBLE = f"{ANALYSIS}Need.<|end|><|channel|>commentary<|message|>I {{will}}.<|end|>"
CHANNELS = AnswerFormats(tools=tool_format("openai"), reasoning=reasoning_format("openai_gptoss"))


@pytest.mark.parametrize("tools", ["openai", "llama3_json"])
@pytest.mark.parametrize("size", [1, 1000])
def test_what_is_said_before_a_forced_call_is_no_part_of_it(tools: str, size: int) -> None:
    choice = {"type": "function", "function": {"name": "get_weather"}}
    body = ChatCompletionRequest.model_validate({**BODY, "tool_choice": choice})
    formats = replace(CHANNELS, tools=tool_format(tools))
    reader = replace(FORM, formats=formats).forced(body).reader()
    text = PREAMBLE + FINAL + '{"city": "Oslo"}'
    for start in range(0, len(text), size):
        reader.feed(text[start : start + size])
    reader.finish()
    (call,) = reader.answer.calls
    assert call.arguments == '{"city": "Oslo"}'
    assert (reader.answer.reasoning, reader.answer.content) == ("Need.", "I {will}.")


def test_a_named_tool_is_called_once() -> None:
    choice = {"type": "function", "function": {"name": "get_weather"}}
    body = ChatCompletionRequest.model_validate({**BODY, "tool_choice": choice})
    call = '<|channel|>commentary to=functions.get_weather<|message|>{"city": "Oslo"}<|call|>'
    answer = replace(FORM, formats=CHANNELS).forced(body).read(call * 2)
    assert [one.arguments for one in answer.calls] == ['{"city": "Oslo"}']


@pytest.mark.parametrize(
    ("more", "forced"),
    [
        (
            {"tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
            '{"city": "Oslo"}',
        ),
        (
            {"tool_choice": "required", "parallel_tool_calls": False},
            '[{"name": "get_weather", "parameters": {"city": "Oslo"}}]',
        ),
    ],
)
def test_a_forced_call_goes_before_one_that_breaks_off(more: dict[str, Any], forced: str) -> None:
    body = ChatCompletionRequest.model_validate({**BODY, **more})
    form = replace(FORM, formats=CHANNELS, is_parallel=body.parallel_tool_calls is not False)
    broken = '<|channel|>commentary to=functions.get_weather<|message|>{"city": "<|end|>'
    text = f"{broken}{ANALYSIS}Hm.<|end|>{FINAL}{forced}"
    reader = form.forced(body).reader()
    for one in text:
        reader.feed(one)
    reader.finish()
    for answer in (form.forced(body).read(text), reader.answer):
        assert [call.arguments for call in answer.calls] == ['{"city": "Oslo"}']
        assert answer.reasoning == "Hm."


@pytest.mark.parametrize(
    ("tools", "call"),
    [
        ("openai", '<|channel|>commentary to=functions.get_weather<|message|>{"city": "<|end|>'),
        ("llama3_json", f'{FINAL}{{"name": "get_weather", "parameters": {{"city": "'),
    ],
)
def test_a_thought_ends_a_call_that_is_open(tools: str, call: str) -> None:
    form = replace(FORM, formats=replace(CHANNELS, tools=tool_format(tools)))
    text = f'{call}{ANALYSIS}Say "x".<|end|>{FINAL}A comma, ",".'
    reader = form.reader()
    pieces = [piece for one in text for piece in reader.feed(one)] + reader.finish()
    for answer in (form.read(text), reader.answer):
        called, thought, content = answer.parts
        assert isinstance(called, ToolCall) and called.arguments == '{"city": "'
        assert (thought, content) == (Reasoning('Say "x".'), Content('A comma, ",".'))
    kinds = [type(piece) for piece in pieces]
    assert kinds.index(CallEnd) < kinds.index(Reasoning)


def test_no_two_calls_have_one_id() -> None:
    call = '<tool_call>{"id": 1, "name": "get_weather", "arguments": {}}</tool_call>'
    first, second = FORM.read(call * 2).calls
    assert first.id == "1" and second.id not in ("", "1")


async def test_chat_tells_thought_content_and_call(state: ServerState) -> None:
    generation = spoken()
    (choice,) = chat_view(state, generation).choices(
        RequestOutput("r", None, None, None, [WHOLE], finished=True)
    )
    message = choice["message"]
    assert message["reasoning"] == message["reasoning_content"] == THOUGHT
    assert message["content"] == "\n\nOne moment.\n"
    assert len(message["tool_calls"]) == 1 and choice["finish_reason"] == "tool_calls"
    details = generation.usage.as_dict()["completion_tokens_details"]
    assert details["reasoning_tokens"] > 3

    choices, usage = await chat_deltas(state, FORM)
    deltas = [one["delta"] for one in choices]
    for key in ("reasoning", "reasoning_content"):
        assert "".join(delta.get(key) or "" for delta in deltas) == THOUGHT
    assert "".join(delta.get("content") or "" for delta in deltas) == "\n\nOne moment.\n"
    assert choices[-1]["finish_reason"] == "tool_calls"
    assert usage.reasoning_tokens == generation.usage.reasoning_tokens


@pytest.mark.parametrize("is_shown", [True, False])
async def test_thoughts_count_while_they_grow(state: ServerState, is_shown: bool) -> None:
    form = AnswerForm(formats=FORMATS, tools=FORM.tools, shows_reasoning=is_shown)
    generation = spoken()
    whole = chat_view(state, generation, form)
    whole.choices(RequestOutput("r", None, None, None, [WHOLE], finished=True))
    expected = generation.usage.reasoning_tokens
    generation = spoken()
    usage = StreamUsage(at_end=True, on_every_chunk=True)
    envelope = Envelope(id="i", model="m", fingerprint="f")
    stream = ChatStream(generation, envelope, chat_view(state, generation, form), usage)
    text = b"".join([data async for data in stream.run()]).decode()
    usages = [event["usage"] for event in events_of(text)[:-1]]
    told = [one["completion_tokens_details"]["reasoning_tokens"] for one in usages]
    assert told[0] == 0 and told[-1] == expected
    assert told[1] > 0 if is_shown else told[2] > 3  # the first chunks are those of the content
    assert len(set(told)) > 3 or not is_shown


async def test_reasoning_may_be_left_out(state: ServerState) -> None:
    form = AnswerForm(formats=FORMATS, tools=FORM.tools, shows_reasoning=False)
    message = chat_view(state, spoken(), form).message(form.read(TEXT))
    assert message["reasoning"] is None
    choices, usage = await chat_deltas(state, form)
    assert not any("reasoning" in one["delta"] for one in choices)
    assert usage.reasoning_tokens
    body = ChatCompletionRequest.model_validate(
        {**BODY, "logprobs": True, "return_token_ids": True}
    )
    view = ChatView(state, body, form, Usage())
    assert not view.has_logprobs and not view.has_token_ids


async def test_anthropics_blocks_are_the_same_streamed(state: ServerState) -> None:
    generation = spoken()
    view = MessageView(state, started(generation))
    blocks = view.whole(WHOLE)["content"]
    assert [block["type"] for block in blocks] == ["thinking", "text", "tool_use"]
    assert blocks[0]["thinking"] == THOUGHT and blocks[2]["input"] == {"city": "Oslo"}
    assert blocks[0]["signature"]  # clients send thoughts without one back as text, or not at all

    text = b"".join([data async for data in message_events(generation, view)]).decode()
    events = [events_of(one.partition("\n")[2])[0] for one in text.split("\n\n") if one]
    begun = [one["content_block"]["type"] for one in events if "content_block" in one]
    assert begun == ["thinking", "text", "tool_use"]
    deltas = [one["delta"] for one in events if one["type"] == "content_block_delta"]
    assert "".join(one.get("thinking", "") for one in deltas) == THOUGHT
    signed = events.index({"type": "content_block_stop", "index": 0}) - 1
    assert [one["type"] for one in deltas].count("signature_delta") == 1
    assert events[signed]["delta"]["signature"] == blocks[0]["signature"]
    assert events[2]["content_block"]["signature"] == ""
    assert "".join(one.get("partial_json", "") for one in deltas) == '{"city": "Oslo"}'
    assert [one["index"] for one in events if one["type"] == "content_block_stop"] == [0, 1, 2]
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


def test_arguments_that_are_no_json_are_told_to_anthropics_clients(state: ServerState) -> None:
    view = MessageView(state, started(spoken()))
    broken = CompletionOutput(0, TEXT.replace('"Oslo"', "Oslo"), [5], None, None)
    assert view.whole(broken)["content"][2]["input"] == {"INVALID_JSON": '{"city": Oslo}'}


@pytest.mark.parametrize(
    ("arguments", "loaded"),
    [
        ('["Oslo"]', {"INVALID_JSON": '["Oslo"]'}),
        ("3", {"INVALID_JSON": "3"}),
        ('{"city": "Oslo", "days": [1, 2', {"city": "Oslo", "days": [1, 2]}),  # cut off
        ('{"city": "Os', {}),
        ('{"city": "Oslo"}', {"city": "Oslo"}),
    ],
)
async def test_anthropics_clients_load_the_same_arguments_streamed(
    state: ServerState, arguments: str, loaded: Any
) -> None:
    head = '<tool_call>\n{"name": "get_weather", "arguments": ' + arguments
    is_whole = arguments[-1] in "]}3"
    said = head + "}\n</tool_call>" if is_whole else head
    generation = spoken(text=said, reason="stop" if is_whole else "length")
    view = MessageView(state, started(generation))
    one = CompletionOutput(0, said, [5], None, None, finish_reason="length")
    assert view.whole(one)["content"][-1]["input"] == loaded

    text = b"".join([data async for data in message_events(generation, view)]).decode()
    events = [events_of(part.partition("\n")[2])[0] for part in text.split("\n\n") if part]
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    streamed = "".join(delta.get("partial_json", "") for delta in deltas)
    assert from_json(streamed, allow_partial=True) == loaded
    if arguments.startswith("{"):
        assert streamed == arguments and len(deltas) > 3


@pytest.mark.parametrize(("stop", "status"), [("Oslo", "incomplete"), (None, "completed")])
async def test_a_call_that_a_stop_string_broke_off_is_incomplete(
    state: ServerState, stop: str | None, status: str
) -> None:
    text = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "'
    one = CompletionOutput(0, text, [5], None, None, finish_reason="stop", stop_reason=stop)
    body = ResponsesRequest.model_validate({"input": "x"})
    response = ResponseView(state, body, started(spoken())).whole(one)
    assert [item["status"] for item in response["output"]] == [status]
    assert response["status"] == "completed"
    plain = CompletionOutput(0, "Hi", [5], None, None, finish_reason="stop", stop_reason=stop)
    (item,) = ResponseView(state, body, started(spoken())).whole(plain)["output"]
    assert item["status"] == "completed"


async def test_items_of_a_response_are_the_same_streamed(state: ServerState) -> None:
    body = ResponsesRequest.model_validate({"input": "x"})
    generation = spoken()
    whole = ResponseView(state, body, started(generation)).whole(WHOLE)
    kinds = ["reasoning", "message", "function_call"]
    assert [item["type"] for item in whole["output"]] == kinds
    assert whole["usage"]["output_tokens_details"]["reasoning_tokens"] > 3

    stream = ResponseStream(generation, ResponseView(state, body, started(generation)))
    text = b"".join([data async for data in stream.run()]).decode()
    events = [events_of(one.partition("\n")[2])[0] for one in text.split("\n\n") if one]
    output = events[-1]["response"]["output"]
    for streamed, own in zip(output, whole["output"], strict=True):
        assert {**streamed, "call_id": ""} == {**own, "call_id": ""}
    done = [one["item"] for one in events if one["type"] == "response.output_item.done"]
    assert done == output
    assert [one["sequence_number"] for one in events] == list(range(len(events)))


@pytest.mark.parametrize("reason", ["stop", "length"])
@pytest.mark.parametrize(
    ("end", "kinds"),
    [
        (f"{FINAL}Done.", ["message", "message"]),
        ("", ["message"]),
        ("<|channel|>commentary to=functions.get_weather<|message|>{}<|call|>", None),
        (
            f"<|channel|>commentary to=functions.get_weather<|message|>{{}}<|call|>{ANALYSIS}So",
            ["message", "function_call"],
        ),
    ],
)
async def test_thoughts_that_are_not_told_part_the_items_of_a_response(
    state: ServerState, end: str, kinds: list[str] | None, reason: str
) -> None:
    body = ResponsesRequest.model_validate({"input": "x"})
    form = replace(FORM, formats=CHANNELS, shows_reasoning=False)
    text = f"{PREAMBLE}{ANALYSIS}Hm.<|end|>{end}"
    generation = spoken(text=text, reason=reason)
    one = CompletionOutput(0, text, [5], None, None, finish_reason=reason)
    whole = ResponseView(state, body, started(generation, form)).whole(one)["output"]
    assert [item["type"] for item in whole] == (kinds or ["message", "function_call"])
    stream = ResponseStream(generation, ResponseView(state, body, started(generation, form)))
    said = b"".join([data async for data in stream.run()]).decode()
    assert "Hm." not in said
    events = [events_of(one.partition("\n")[2])[0] for one in said.split("\n\n") if one]
    for streamed, own in zip(events[-1]["response"]["output"], whole, strict=True):
        assert {**streamed, "call_id": ""} == {**own, "call_id": ""}


def test_log_probabilities_of_a_response_need_one_item() -> None:
    body = ResponsesRequest.model_validate(
        {"input": "x", "include": ["message.output_text.logprobs"]}
    )
    with pytest.raises(HTTPError, match="belong to no single item"):
        check_logprobs(body, FORM)
    check_logprobs(body, AnswerForm())


def test_marks_that_are_special_tokens_stay_in_the_text(engine: AsyncLLM) -> None:
    formats = AnswerFormats(
        tools=tool_format("mistral"), special_tokens=frozenset({"[TOOL_CALLS]", "</s>"})
    )
    params = SamplingParams()
    assert (
        AnswerForm(formats=formats, tools=Tools()).with_marks(params).skip_special_tokens is False
    )
    assert AnswerForm(formats=formats).with_marks(params) is params
    assert FORM.with_marks(params) is params and params.skip_special_tokens


def test_ids_have_the_length_that_mistrals_template_wants() -> None:
    form = AnswerForm(formats=AnswerFormats(tools=tool_format("mistral")), tools=Tools())
    (call,) = form.read('[TOOL_CALLS]f{"a": 1}').calls
    assert len(call.id) == 9 and call.id.isalnum()


@pytest.mark.parametrize(
    ("last", "prompt", "opening"),
    [
        ({"role": "user", "content": "x"}, "...\n<think>\n", Opening.IN_THOUGHT),
        ({"role": "user", "content": "x"}, "...\n", Opening.UNKNOWN),
        ({"role": "assistant", "content": "<think>a</think>b"}, "...", Opening.AFTER_THOUGHT),
        ({"role": "assistant", "content": PARTS}, "...", Opening.IN_THOUGHT),
        ({"role": "assistant", "content": [*PARTS, {"text": "</think>"}]}, "...",
         Opening.AFTER_THOUGHT),
        ({"role": "assistant", "content": None}, "...<think>", Opening.IN_THOUGHT),
    ],
)  # fmt: skip
def test_the_prompt_tells_whether_the_answer_begins_in_a_thought(
    last: dict[str, Any], prompt: str, opening: Opening
) -> None:
    body = {"messages": [last], "continue_final_message": last["role"] == "assistant"}
    chat = ChatCompletionRequest.model_validate(body)
    assert AnswerForm.of(FORMATS, chat, ParsedPrompt(text=prompt)).opening is opening


@pytest.mark.parametrize(
    ("name", "of_unknown"), [("qwen3", None), ("deepseek_r1", True), ("openai_gptoss", True)]
)
def test_where_nothing_tells_the_model_decides_unless_it_always_thinks(
    engine: AsyncLLM, name: str, of_unknown: bool | None
) -> None:
    chat = ChatRenderer(engine.front.require_tokenizer())
    formats = AnswerFormats.of(ServerArgs(reasoning_parser=name), chat)
    assert formats.thoughts is not None
    opened = [formats.thoughts.after(opening) for opening in Opening]
    assert [one.is_open for one in opened] == [True, False, of_unknown]
    assert AnswerFormats().thoughts is None


def test_formats_are_named_or_found(engine: AsyncLLM) -> None:
    assert engine.front.tokenizer is not None
    chat = ChatRenderer(engine.front.tokenizer)
    found = AnswerFormats.of(ServerArgs(), chat)
    assert found.tools is tool_format("hermes") and found.reasoning is None
    named = AnswerFormats.of(ServerArgs(tool_call_parser="jamba", reasoning_parser="qwen3"), chat)
    assert named.tools is tool_format("jamba")
    assert named.thoughts is not None
    (mark,) = named.thoughts.ends
    assert [*mark.token_ids] == engine.front.tokenizer.encode("</think>", add_special_tokens=False)
    harmony = ChatRenderer(
        engine.front.tokenizer, "{{ tools }}<|start|>assistant<|channel|>x to=functions."
    )
    found = AnswerFormats.of(ServerArgs(), harmony)
    assert found.tools is tool_format("openai")
    assert found.reasoning is reasoning_format("openai_gptoss")


def test_unknown_formats_are_refused_before_the_start() -> None:
    with pytest.raises(ValueError, match="no tool call parser 'hermess'; did you mean hermes"):
        check_formats(ServerArgs(tool_call_parser="hermess"))
    with pytest.raises(ValueError, match="no reasoning parser"):
        check_formats(ServerArgs(reasoning_parser="quen3"))
    check_formats(ServerArgs(tool_call_parser="hermes", reasoning_parser="auto"))


async def test_the_effort_of_thinking_reaches_a_template_that_heeds_it(engine: AsyncLLM) -> None:
    state = ready_state(engine, trust_request_chat_template=True)
    body = {**BODY, "tool_choice": "none", "reasoning_effort": "none"}
    template = "{{ reasoning_effort }} {{ enable_thinking }} {{ messages[0].content }}"
    async with in_process_client(state) as client:

        async def prompt(**more: Any) -> str:
            answer = await client.post("/apply-template", json={**body, **more})
            return str(answer.json().get("prompt") or answer.json()["error"]["message"])

        assert await prompt(chat_template=template) == "none False x"
        assert await prompt(chat_template=template, reasoning_effort="high") == "high True x"
        own = {"enable_thinking": False}
        assert (
            await prompt(chat_template=template, reasoning_effort="low", chat_template_kwargs=own)
            == "low False x"
        )
        assert (await prompt()).startswith("<|im_start|>")  # it does not think anyway
        assert "reads no variable for it" in await prompt(reasoning_effort="high")
