"""Conversations given to an LLM, on a core that repeats the prompt."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pydantic
import pytest

from quire.llm import LLM
from quire.sampling_params import SamplingParams
from tests.fakes.llms import llm_on_fake_core

FOUR = SamplingParams(max_tokens=4)


@pytest.fixture
def llm(byte_tokenizer: Path) -> Iterator[LLM]:
    with llm_on_fake_core(byte_tokenizer) as made:
        yield made


def test_chat_takes_one_conversation_or_several(llm: LLM) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    (output,) = llm.chat(messages, FOUR)
    assert output.prompt == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert output.prompt_token_ids == llm.get_tokenizer().encode(output.prompt)
    several = llm.chat([messages, messages], FOUR, lora_request=[None, None])
    assert [one.prompt for one in several] == [output.prompt] * 2


def test_everything_may_be_a_column_of_a_table(llm: LLM) -> None:
    def column(values: list[Any]) -> Any:
        made = np.empty(len(values), dtype=object)
        made[:] = values
        return made

    messages = [{"role": "user", "content": "Hi"}]
    params = [SamplingParams(max_tokens=count) for count in (1, 3)]
    none = np.zeros(2, dtype=np.int64)
    several = llm.chat(column([messages, messages]), column(params), priority=none)
    assert [len(one.outputs[0].token_ids) for one in several] == [1, 3]
    several = llm.generate(column(["ab", "cd"]), column(params), priority=none)
    assert [len(one.outputs[0].token_ids) for one in several] == [1, 3]


@pytest.mark.parametrize("messages", ["Hi", None, {"role": "user", "content": "Hi"}])
def test_messages_of_another_type_are_one_clear_error(llm: LLM, messages: Any) -> None:
    with pytest.raises(ValueError, match=r"^messages must be a list of messages"):
        llm.chat(messages, FOUR)


def test_wrong_conversation_of_several_is_named(llm: LLM) -> None:
    good = [{"role": "user", "content": "Hi"}]
    with pytest.raises(ValueError, match=r"^messages\[1\]: a message must be a dict"):
        llm.chat([good, [{"content": "Hi"}]], FOUR)
    with pytest.raises(ValueError, match=r"^messages\[1\] has \d+ tokens"):
        llm.chat([good, [{"role": "user", "content": "x" * 80}]], FOUR)


def test_content_format_is_logged_once(llm: LLM, caplog: pytest.LogCaptureFixture) -> None:
    template = "{{ messages[0].content }} once"
    with caplog.at_level(logging.INFO, logger="quire.template_format"):
        for _ in range(3):
            llm.chat([{"role": "user", "content": "Hi"}], FOUR, chat_template=template)
    assert len(caplog.records) == 1


def test_chat_template_of_the_call_wins(llm: LLM) -> None:
    (output,) = llm.chat(
        [{"role": "user", "content": "Hi"}],
        FOUR,
        chat_template="{{ messages[0].content }}{{ mark }}",
        chat_template_kwargs={"mark": "!"},
    )
    assert (output.prompt, output.outputs[0].text) == ("Hi!", "Hi!H")


def test_a_template_in_python_is_kept_as_it_is(llm: LLM) -> None:
    template = r"{{ messages[0].content }}\text{\nabla}{{ '\\n' }}"
    (output,) = llm.chat([{"role": "user", "content": "Hi"}], FOUR, chat_template=template)
    assert output.prompt == r"Hi\text{\nabla}\n"


@pytest.mark.parametrize(
    "unread", [{"documents": [{"text": "d"}]}, {"tools": [{"name": "t"}]}, {"mark": "!"}]
)
def test_what_the_template_does_not_read_is_refused(llm: LLM, unread: dict[str, Any]) -> None:
    keywords: dict[str, Any] = {"chat_template_kwargs": unread} if "mark" in unread else unread
    for call in (llm.chat, llm.stream_chat):
        with pytest.raises(ValueError, match=r"have no effect|unknown field"):
            list(call([{"role": "user", "content": "Hi"}], FOUR, **keywords))


CHAT_KEYWORDS = (
    *("chat_template", "chat_template_content_format", "add_generation_prompt"),
    *("continue_final_message", "tools", "chat_template_kwargs", "documents"),
)


def test_chat_can_be_streamed_with_the_same_arguments(llm: LLM) -> None:
    one, other = (inspect.signature(method).parameters for method in (llm.chat, llm.stream_chat))
    for name in CHAT_KEYWORDS:
        assert one[name].default == other[name].default, name
        assert one[name].annotation == other[name].annotation, name
    messages = [{"role": "user", "content": "Hi"}]
    keywords: dict[str, Any] = {
        "chat_template": "{{ messages[0].content }}{{ tools[0].name }}{{ documents[0].text }}"
        "{{ mark }}",
        "tools": [{"name": "t"}],
        "documents": [{"text": "d"}],
        "chat_template_kwargs": {"mark": "!"},
    }
    assert llm.chat(messages, FOUR, **keywords)[0].prompt == "Hitd!"
    assert [one.prompt for one in llm.stream_chat(messages, FOUR, **keywords)][-1] == "Hitd!"


def test_arguments_of_a_chat_are_described(llm: LLM) -> None:
    text = inspect.getdoc(llm.chat) or ""
    names = inspect.signature(llm.chat).parameters.keys() - {"messages"}
    assert [name for name in names if name not in text] == []
    for method in (llm.generate, llm.stream, llm.beam_search):
        assert "``priority``" in (inspect.getdoc(method) or "")


def test_message_that_is_an_object_is_named_with_what_to_do(llm: LLM) -> None:
    class Message(pydantic.BaseModel):
        role: str = "user"
        content: str = "Hi"

    plain = {"role": "user", "content": "Hi"}
    for messages in ([Message()], [SimpleNamespace(**plain)]):
        with pytest.raises(ValueError, match=r"^messages\[0\] must be a message, .*model_dump\(\)"):
            llm.chat(messages, FOUR)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"a message must be a dict.*\(Message\).*model_dump\(\)$"):
        llm.chat([[plain, Message()]], FOUR)
    with pytest.raises(ValueError, match=r"^messages\[1\] must be a message, .*\(Message\); pass"):
        llm.chat([plain, Message()], FOUR)
    with pytest.raises(ValueError, match=r"^messages\[0\] must be a message, .*'Hi' \(str\)$"):
        llm.chat(["Hi"], FOUR)


@pytest.mark.parametrize("is_first", [True, False])
def test_conversations_beside_messages_are_refused(llm: LLM, is_first: bool) -> None:
    message: Any = {"role": "user", "content": "Hi"}
    mixed = [[message], message] if is_first else [message, [message]]
    one, other = (0, 1) if is_first else (1, 0)
    expected = (
        rf"mixes conversations and messages: messages\[{one}\] is a list, messages\[{other}\] a"
    )
    with pytest.raises(ValueError, match=expected):
        llm.chat(mixed, FOUR)
