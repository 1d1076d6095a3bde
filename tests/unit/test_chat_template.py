"""Conversations become the prompts that the template's author meant."""

from __future__ import annotations

import re
from typing import Any

import pytest

from quire.chat_template import ChatOptions, ChatRenderer
from quire.chat_templates import chat_template_names, named_chat_template
from quire.template_format import template_fault, template_variables
from tests.fakes import tokenizers

HELLO = [{"role": "user", "content": "Hello"}]
PARTS = (
    "{% for m in messages %}[{{ m['role'] }}]"
    "{% for part in m['content'] %}({{ part.text }}){% endfor %}{% endfor %}"
)
# As Gemma 3's template: of a system message it reads only the first part.
STRING_OR_PARTS = (
    "{% for m in messages %}{% set c = m.content %}{% if c is string %}{{ c }}"
    "{% elif m.role == 'system' %}{{ c[0]['text'] }}"
    "{% else %}{% for part in c %}{{ part['text'] }}{% endfor %}{% endif %}{% endfor %}"
)
# As GLM-4.5's template: the results of tools are strings, or parts of a form of its own.
STRING_RESULTS = (
    "{% for m in messages %}{% if m.content is string %}{{ m.content }}"
    "{% else %}{% for result in m.content %}{{ result.output or result }}{% endfor %}{% endif %}"
    "{% endfor %}"
)


def render(messages: Any, template: str | None = None, **options: Any) -> str:
    prompt = ChatRenderer(tokenizers.byte_level()).render(
        messages, ChatOptions(template=template, **options)
    )
    assert prompt.text is not None and not prompt.add_special_tokens
    return prompt.text


def test_prompt_ends_with_the_head_of_the_answer() -> None:
    head = "<|im_start|>user\nHello<|im_end|>\n"
    assert render(HELLO) == head + "<|im_start|>assistant\n"
    assert render(HELLO, add_generation_prompt=False) == head


def test_final_message_is_continued() -> None:
    messages = [*HELLO, {"role": "assistant", "content": "Well,"}]
    text = render(messages, add_generation_prompt=False, continue_final_message=True)
    assert text.endswith("<|im_start|>assistant\nWell,")
    with pytest.raises(ValueError, match="cannot both be true"):
        ChatOptions(continue_final_message=True)


def test_final_message_with_calls_cannot_be_continued() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    last = {"role": "assistant", "content": "Well,", "tool_calls": [call]}
    for content in ("Well,", None):
        messages = [*HELLO, {**last, "content": content}]
        with pytest.raises(ValueError, match=r"^messages\[1\]\.tool_calls: .*remove tool_calls"):
            render(messages, add_generation_prompt=False, continue_final_message=True)
        assert render(messages)
    earlier = [last, {"role": "tool", "content": "3"}, {"role": "assistant", "content": "So"}]
    text = render(earlier, add_generation_prompt=False, continue_final_message=True)
    assert text.endswith("So")
    without = [{**last, "tool_calls": []}]
    assert render(without, add_generation_prompt=False, continue_final_message=True)


@pytest.mark.parametrize(
    ("template", "plain", "parts"),
    [
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "a", "b\nc"),
        (PARTS, "[user](a)", "[user](b)(c)"),
        (STRING_OR_PARTS, "a", "bc"),
    ],
)
def test_content_takes_the_form_that_the_template_wants(
    template: str, plain: str, parts: str
) -> None:
    two = [{"type": "text", "text": "b"}, {"type": "input_text", "text": "c"}]
    assert render([{"role": "user", "content": "a"}], template) == plain
    assert render([{"role": "user", "content": two}], template) == parts


@pytest.mark.parametrize("template", [STRING_OR_PARTS, STRING_RESULTS])
@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool"])
def test_no_part_is_lost_where_a_template_reads_strings_too(template: str, role: str) -> None:
    parts = [{"type": "text", "text": text} for text in ("b", "c\n", "d")]
    assert render([{"role": role, "content": parts}], template) == "bc\nd"
    assert render([{"role": role, "content": parts[:1]}], template) == "b"


def test_content_format_can_be_forced() -> None:
    message = [{"role": "user", "content": [{"type": "text", "text": "b"}]}]
    printing = "{{ messages[0].content }}"
    assert render(message, printing, content_format="string") == "b"
    assert render(message, printing, content_format="openai") == "[{'type': 'text', 'text': 'b'}]"
    for content in ("b", message[0]["content"]):
        same: Any = [{"role": "tool", "content": content}]
        asked = "{{ messages[0].content is string }}" + STRING_RESULTS
        assert render(same, asked, content_format="openai").startswith("False")
        assert render(same, asked, content_format="string") == "Trueb"
    with pytest.raises(ValueError, match="'auto', 'string' or 'openai'"):
        ChatOptions(content_format="list")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tools": 5}, "tools must be a list, got 5"),
        ({"documents": "text"}, "documents must be a list, got 'text'"),
        ({"template_kwargs": ["a"]}, r"chat_template_kwargs must be a dict, got \['a'\]"),
    ],
)
def test_options_of_another_type_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ChatOptions(**options)


def test_tools_documents_and_own_variables_reach_the_template() -> None:
    template = "{{ tools[0].function.name }} {{ documents[0].title }} {{ enable_thinking }}"
    tool = {"type": "function", "function": {"name": "weather", "parameters": {}}}
    text = render(
        HELLO,
        template,
        tools=[tool],
        documents=[{"title": "Rain"}],
        template_kwargs={"enable_thinking": False},
    )
    assert text == "weather Rain False"
    with pytest.raises(ValueError, match="cannot hold tokenize"):
        ChatOptions(template_kwargs={"tokenize": True})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tools": [{"type": "function"}]}, r"^tools have no effect: .*\(--chat-template\)"),
        ({"documents": [{"title": "Rain"}]}, "^documents have no effect: .* into a message"),
        (
            {"template_kwargs": {"enable_thinking": False, "mode": 1}},
            "^unknown field 'chat_template_kwargs.mode'; did you mean mood",
        ),
    ],
)
def test_what_the_template_does_not_read_is_refused(options: dict[str, Any], message: str) -> None:
    prose = "Read the documents, use tools in any mode. {{ mood }}{% set tools = 1 %}{{ tools }}"
    with pytest.raises(ValueError, match=message):
        render(HELLO, prose, **options)
    assert render(HELLO, prose, tools=[], documents=[], template_kwargs={"thinking": True})
    own = {"mode": 1}
    assert render(HELLO, prose, template_kwargs=own, allows_unread_kwargs=True)


def weather(city: str) -> None:
    """The weather.

    Args:
        city: where
    """


def test_tools_stand_in_the_system_message_where_the_template_reads_them_there() -> None:
    """As Phi-4-mini's template, which reads no other variable than the messages."""
    template = (
        "{% for m in messages %}{% if m['role'] == 'system' and 'tools' in m %}"
        "{{ '<' + m['role'] + '>' + m['content'] + '<tools>' + m['tools'] }}"
        "{% else %}{{ '<' + m['role'] + '>' + m['content'] }}{% endif %}{% endfor %}"
    )
    function = {"name": "f", "description": "Æ", "parameters": {}}
    tools: list[Any] = [{"type": "function", "function": function}]
    json_text = '[{"name": "f", "description": "Æ", "parameters": {}}]'
    system = {"role": "system", "content": "Be brief."}
    assert render(HELLO, template, tools=tools) == f"<system><tools>{json_text}<user>Hello"
    assert render([system, *HELLO], template, tools=tools) == (
        f"<system>Be brief.<tools>{json_text}<user>Hello"
    )
    assert render([system, *HELLO], template) == "<system>Be brief.<user>Hello"
    assert '"name": "weather"' in render(HELLO, template, tools=[weather])


@pytest.mark.parametrize(
    ("calls", "place"),
    [
        ("x", "messages[1].tool_calls"),
        (5, "messages[1].tool_calls"),
        ([None], "messages[1].tool_calls[0]"),
        ([{"id": "a", "type": "function"}], "messages[1].tool_calls[0]"),
        ([{"function": {"name": 3}}], "messages[1].tool_calls[0]"),
        (
            [{"function": {"name": "f"}}, {"function": {"name": "f", "arguments": [1]}}],
            "messages[1].tool_calls[1]",
        ),
    ],
)
def test_tool_calls_of_a_wrong_type_are_named(calls: Any, place: str) -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "", "tool_calls": calls},
    ]
    with pytest.raises(ValueError, match=f"^{re.escape(place)}: must be"):
        render(messages, "{{ messages }}")


def test_arguments_of_tool_calls_are_objects_in_the_template() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": '{"city": "Paris"}'}}
    template = "{{ messages[0].tool_calls[0].function.arguments.city }}{{ messages[0].content }}"
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert render([message], template) == "Paris"
    written = "{{ messages[0].tool_calls[0].function.arguments }}"
    for function in ({"arguments": ""}, {"arguments": None}, {}):
        call["function"] = {"name": "f", **function}
        assert render([message], written) == "{}"


@pytest.mark.parametrize(
    "text", ["{city", "[1]", "null", "3", "[" * 100_000, r'{"city": "\ud83d"}', r'{"\uDE00": 1}']
)
def test_arguments_that_are_no_object_are_one_that_holds_their_text(text: str) -> None:
    function = {"name": "f", "arguments": text}
    message = {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]}
    template = "{{ messages[0].tool_calls[0].function.arguments.INVALID_JSON }}"
    assert render([message], template) == text


# Reads calls and thoughts as gpt-oss's template does.
ONE_CALL = (
    "{% set last = namespace(name='') %}{% for m in messages %}{% if m.tool_calls %}"
    "{% if m.content and m.thinking %}{{ raise_exception('not both') }}{% endif %}"
    "{% set call = m.tool_calls[0].function %}{% set last.name = call.name %}"
    "({{ m.thinking or m.content }}){{ call.name }}{{ call.arguments }}"
    "{% elif m.role == 'tool' %}{{ last.name }}={{ m.content }};{% endif %}{% endfor %}"
)
# Names no call beside its result.
ALL_CALLS = (
    "{% for m in messages %}{% for call in m.tool_calls or [] %}{{ call.function.name }},"
    "{% endfor %}{% if m.role == 'tool' %}{{ m.content }};{% endif %}{% endfor %}"
)


def calling(*names: str, **fields: Any) -> dict[str, Any]:
    """A message with a call of each tool, whose id is its name."""
    calls = [
        {"id": name, "type": "function", "function": {"name": name, "arguments": "{}"}}
        for name in names
    ]
    return {"role": "assistant", "content": None, **fields, "tool_calls": calls}


def result(name: str | None, content: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": name, "content": content}


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content", "thinking"])
def test_a_text_stands_in_the_thought_if_the_template_refuses_both(name: str) -> None:
    turn = calling("f", content="Let me look.", **{name: "Hm."})
    assert render([turn, result("f", "1")], ONE_CALL) == "(Hm.\nLet me look.)f{}f=1;"
    parts = [{"type": "text", "text": "Let me look."}]
    assert render([{**turn, "content": parts}], ONE_CALL) == "(Hm.\nLet me look.)f{}"
    assert render([calling("f", content="So.")], ONE_CALL) == "(So.)f{}"
    plain = "{% for m in messages %}{{ m.content }}|{{ m.reasoning }}|{{ m.tool_calls | length }}"
    kept = calling("f", content="So.", reasoning="Hm.")
    assert render([kept], plain + "{% endfor %}") == "So.|Hm.|1"


def test_a_template_that_reads_one_call_gets_each_before_its_result() -> None:
    turn = calling("f", "g", content="So.")
    results = [result("f", "1"), result("g", "2")]
    assert render([turn, *results], ONE_CALL) == "(So.)f{}f=1;()g{}g=2;"
    assert render([turn, *reversed(results)], ONE_CALL) == "(So.)f{}f=1;()g{}g=2;"
    assert render([turn, results[1]], ONE_CALL) == "(So.)f{}()g{}g=2;"
    unnamed = [result(None, "1"), result(None, "2"), result(None, "3")]
    assert render([turn, *unnamed], ONE_CALL) == "(So.)f{}f=1;()g{}g=2;g=3;"
    for call in turn["tool_calls"]:
        call["function"]["arguments"] = '{"a":  1}'
    joining = ONE_CALL.replace("{{ call.arguments }}", "{{ '' + call.arguments }}")
    assert render([turn, *results], joining) == '(So.)f{"a":  1}f=1;()g{"a":  1}g=2;'


@pytest.mark.parametrize(
    ("more", "begin", "between", "end"),
    [
        ("", "<tool_call>\n", "\n</tool_call>\n<tool_call>\n", "\n</tool_call>"),
        # As Phi-4-mini's template, which tells the model how to write calls.
        (
            "{{ '<|tool|>' + messages[0]['tools'] + '<|/tool|>' if messages[0]['tools'] }}",
            *("<|tool_call|>[", ", ", "]<|/tool_call|>"),
        ),
    ],
)
def test_calls_are_text_where_the_template_would_leave_them_out(
    more: str, begin: str, between: str, end: str
) -> None:
    template = more + "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    results = [result("g", "2"), result("f", "1")]
    f, g = (f'{{"name": "{name}", "arguments": {{}}}}' for name in "fg")
    both = f"{begin}{f}{between}{g}{end}"
    for content, text in ((None, both), ("", both), ("So:", f"So:\n{both}")):
        messages = [*HELLO, calling("f", "g", content=content), *results]
        assert render(messages, template) == f"<user>Hello<assistant>{text}<tool>1<tool>2"
    parts = [{"type": "text", "text": "So:"}]
    written = render([*HELLO, calling("f", content=parts)], more + PARTS)
    assert written == f"[user](Hello)[assistant](So:)({begin}{f}{end})"
    with pytest.raises(ValueError, match="must be a string or a list of parts, got 3"):
        render([*HELLO, calling("f", content=3)], template)


def test_arguments_in_the_text_of_a_call_are_those_that_were_given() -> None:
    printing = "{{ messages[1].content }}"
    for arguments in ('{"a":  1}', "no JSON"):
        assert f'"arguments": {arguments}}}' in render(called(arguments), printing)
    assert '"arguments": {"city": "Łódź"}}' in render(called({"city": "Łódź"}), printing)


def test_results_of_tools_stand_in_the_order_of_their_calls() -> None:
    turn, later = calling("f", "g", "h"), {"role": "user", "content": "?"}
    swapped = [result("h", "3"), result("f", "1"), result("g", "2")]
    assert render([turn, *swapped], ALL_CALLS) == "f,g,h,1;2;3;"
    assert render([turn, swapped[0], later, *swapped[1:]], ALL_CALLS) == "f,g,h,3;1;2;"
    assert render([turn, *swapped, calling("g", "f"), *swapped[1:]], ALL_CALLS) == (
        "f,g,h,1;2;3;g,f,2;1;"
    )


def test_results_keep_their_order_where_an_id_says_nothing() -> None:
    swapped = [result("g", "2"), result("f", "1")]
    same = calling("f", "g")
    same["tool_calls"][1]["id"] = "f"
    for turn in (calling("f", "x"), same):
        assert render([turn, *swapped], ALL_CALLS).endswith(",2;1;")
    ids: list[Any] = [["a"], {"b": 1}]
    odd = calling("f", "g")
    for call, id in zip(odd["tool_calls"], ids, strict=True):
        call["id"] = id
    assert render([odd, *swapped], ALL_CALLS) == "f,g,2;1;"


def called(arguments: Any, content: str | None = None) -> list[dict[str, Any]]:
    """A conversation with one call."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return [*HELLO, {"role": "assistant", "content": content, "tool_calls": [call]}]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"city":  "Oslo"}', '{"city":  "Oslo"}'),  # with the client's own spaces
        ("{city", "{city"),
        ("", "{}"),
        ({"city": "Æ"}, '{"city": "Æ"}'),
    ],
)
def test_a_template_that_joins_arguments_to_a_text_gets_them_as_text(
    arguments: Any, text: str
) -> None:
    template = "{{ '<' + messages[1].tool_calls[0]['function']['arguments'] + '>' }}"
    assert render(called(arguments), template) == f"<{text}>"


def test_another_type_error_of_a_template_is_told_as_it_is() -> None:
    joining = "{{ 'a' + messages[1].tool_calls[0].function.arguments.city }}"
    with pytest.raises(ValueError, match=r"can only concatenate str \(not \"int\"\) to str"):
        render(called('{"city": 3}'), joining)


@pytest.mark.parametrize("test", ["m['content'] is none", "not m.get('content') is not none"])
def test_a_template_that_asks_for_it_sees_that_a_call_has_no_content(test: str) -> None:
    template = (
        "{{ eos_token }}{% for m in messages %}{% if " + test + " %}({{ m.tool_calls[0].type }})"
        "{% else %}[{{ m.content }}]{% endif %}{% endfor %}{{ mood }}{{ tools }}"
    )
    eos = tokenizers.byte_level().eos_token
    own = {"template_kwargs": {"mood": "!"}}
    assert render(called("{}"), template, **own) == f"{eos}[Hello](function)!None"
    assert render(called("{}", "So"), template, **own) == f"{eos}[Hello][So]!None"
    silent = [*HELLO, {"role": "assistant", "content": None}]
    assert render(silent, template, **own) == f"{eos}[Hello][]!None"


def test_a_call_without_content_goes_on_where_texts_are_joined() -> None:
    """The two habits of DeepSeek's first templates."""
    template = (
        "{% for m in messages %}{% if m['role'] == 'assistant' and m['content'] is none %}"
        "{% for t in m['tool_calls'] %}{{ '<call>' + t['function']['name'] + '\\n'"
        " + t['function']['arguments'] }}{% endfor %}"
        "{% elif m['content'] is not none %}{{ '<' + m['role'] + '>' + m['content'] }}{% endif %}"
        "{% endfor %}"
    )
    messages = [*called('{"a": 1}'), {"role": "tool", "content": "sunny"}]
    assert render(messages, template) == '<user>Hello<call>f\n{"a": 1}<tool>sunny'


@pytest.mark.parametrize("calls", [[], None])
@pytest.mark.parametrize(
    "test", ["'tool_calls' in m", "m.tool_calls is defined and m.tool_calls is not none"]
)
def test_an_answer_with_no_calls_is_an_answer(test: str, calls: Any) -> None:
    template = (
        "{% for m in messages %}{% if " + test + " %}{{ m.tool_calls[0].function.name }}"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )
    messages = [*HELLO, {"role": "assistant", "content": " you", "tool_calls": calls}]
    assert render(messages, template) == "Hello you"


def test_values_too_deep_for_the_template_are_said_to_be() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply"):
        render(HELLO, "{{ thinking }}", template_kwargs={"thinking": deep})


def test_no_template_is_one_clear_error() -> None:
    renderer = ChatRenderer(tokenizers.word_piece())
    with pytest.raises(ValueError, match=r"As of transformers v4\.44.*--chat-template"):
        renderer.render(HELLO)
    own = ChatRenderer(tokenizers.word_piece(), "{{ messages[0].content }}!")
    assert own.render(HELLO).text == "Hello!"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% for m in messages %}", "cannot render"),
        ("{{ messages[0].content.nothing.more }}", "nothing"),
        ("{{ ''.__class__.__mro__ }}", "cannot render"),
    ],
)
def test_failure_of_a_template_is_told(template: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render(HELLO, template)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "at least one message"),
        (["Hello"], "must be a dict with a 'role'"),
        ([{"role": "user", "content": 3}], "string or a list of parts"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "'image_url' are not supported"),
        ([{"role": "user", "content": [{"type": "text"}]}], "needs a string under 'text'"),
        (
            [*HELLO, {"role": "user", "content": ["a", {"type": [], "text": "b"}]}],
            r"^messages\[1\]\.content\[1\]\.type: must be a string, .* got \[\]$",
        ),
        (
            [{"role": "user", "content": [{"type": {"a": 1}, "text": "b"}]}],
            r"^messages\[0\]\.content\[0\]\.type: must be a string, .* got \{'a': 1\}$",
        ),
        ([{"role": "user", "content": [{"text": "b"}]}], "type: must be a string, .* got None"),
    ],
)
def test_wrong_messages_are_named(messages: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render(messages)


@pytest.mark.parametrize("role", ["system", "user", "tool"])
def test_a_message_without_content_is_refused(role: str) -> None:
    needs = rf"^messages\[1\]\.content: a message of role '{role}' needs a content"
    with pytest.raises(ValueError, match=rf"{needs}.*it has 'contents', did you mean content\?$"):
        render([*HELLO, {"role": role, "contents": "b"}])
    messages: list[dict[str, Any]] = [{"role": role}]
    if role != "tool":
        messages.append({"role": role, "content": None, "name": "x"})
    for message in messages:
        with pytest.raises(ValueError, match=rf"{needs}.* text parts$"):
            render([*HELLO, message])


@pytest.mark.parametrize("role", ["tool", "function"])
def test_a_result_may_be_null_but_not_misspelt(role: str) -> None:
    texts = [
        render([*HELLO, calling("f"), {"role": role, "tool_call_id": "1", "content": content}])
        for content in (None, "")
    ]
    assert texts[0] == texts[1]
    with pytest.raises(ValueError, match=r"^messages\[1\]\.content: .*'contents', did you mean"):
        render([*HELLO, {"role": role, "content": None, "contents": "b"}])


@pytest.mark.parametrize("fields", [{}, {"content": None}, {"contents": "b"}, {"text": "b"}])
def test_a_message_of_another_role_may_have_fields_that_the_template_reads(
    fields: dict[str, Any],
) -> None:
    own = [*HELLO, {"role": "results", "values": [1]}]
    template = "{{ messages[1].content }}{{ messages[1]['values'] }}"
    assert render(own, template) == "[1]"
    needs = r"^messages\[1\]\.content: a message of role 'results' needs a content"
    with pytest.raises(ValueError, match=needs):
        render([*HELLO, {"role": "results", "tool_call_id": "c", **fields}], template)


def test_an_answer_may_be_empty_but_not_misspelt() -> None:
    for fields in ({}, {"content": None}, {"content": ""}):
        answer = {"role": "assistant", **fields}
        assert "<|im_start|>assistant\n<|im_end|>" in render([*HELLO, answer, *HELLO])
    with pytest.raises(ValueError, match=r"^messages\[1\]\.content: .*'contents', did you mean"):
        render([*HELLO, {"role": "assistant", "contents": "b"}])
    for said in ({"reasoning": "b"}, {"tool_calls": calling("f")["tool_calls"]}):
        assert render([*HELLO, {"role": "assistant", "context": "b", **said}])


def test_what_a_template_reads() -> None:
    template = "a {% set b = 1 %}{% for m in messages %}{{ m.c }}{{ b }}{% endfor %}{{ d.e }}"
    assert template_variables(template) == {"messages", "d"}
    assert template_variables("{{ broken") == frozenset()


@pytest.mark.parametrize("name", chat_template_names())
def test_our_own_templates_parse(name: str) -> None:
    assert template_fault(named_chat_template(name)) is None
