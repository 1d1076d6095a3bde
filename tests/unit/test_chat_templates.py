"""Families that ship no chat template get their published format, ends included."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest

from quire.chat_template import ChatOptions, ChatRenderer
from quire.chat_template_choice import load_chat_template
from quire.chat_templates import (
    chat_template_names,
    ends_of_format,
    give_chat_template,
    named_chat_template,
)
from tests.fakes import tokenizers

TURNS = [
    {"role": "user", "content": "q1"},
    {"role": "assistant", "content": "a1"},
    {"role": "user", "content": "q2"},
]
SYSTEM = {"role": "system", "content": "s"}
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)
AQUILA = VICUNA.replace("user", "human")
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request."
)
JAIS_END = (
    "\n\nComplete the conversation below between [|Human|] and [|AI|]:\n"
    "### Input: [|Human|] q1\n### Response: [|AI|] a1\n"
    "### Input: [|Human|] q2\n### Response: [|AI|]"
)
CHATML = (
    "<|im_start|>user\nq1<|im_end|>\n<|im_start|>assistant\na1<|im_end|>\n"
    "<|im_start|>user\nq2<|im_end|>\n<|im_start|>assistant\n"
)
# Architecture, name, more of the config -> the prompt of TURNS; <s> and </s> are BOS and EOS.
FORMATS: list[tuple[str, str, dict[str, Any], str]] = [
    (
        *("QWenLMHeadModel", "qwen/Qwen-7B-Chat", {}),
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" + CHATML,
    ),
    ("YiForCausalLM", "01ai/Yi-6B", {}, CHATML),
    ("LlamaForCausalLM", "01-ai/Yi-6B-Chat", {}, CHATML),
    ("MPTForCausalLM", "mosaicml/mpt-7b-chat", {}, CHATML),
    (
        *("MPTForCausalLM", "mosaicml/mpt-7b-instruct", {}),
        ALPACA + "\n### Instruction:\nq1\n### Response:\na1\n### Instruction:\nq2\n### Response:\n",
    ),
    (
        *("BaichuanForCausalLM", "x", {"vocab_size": 64000}),
        "<reserved_102>q1<reserved_103>a1<reserved_102>q2<reserved_103>",
    ),
    (
        *("BaichuanForCausalLM", "x", {"vocab_size": 125696}),
        "<reserved_106>q1<reserved_107>a1<reserved_106>q2<reserved_107>",
    ),
    (
        *("BaichuanForCausalLM", "x", {"z_loss_weight": 0}),
        "<reserved_106>q1<reserved_107>a1<reserved_106>q2<reserved_107>",
    ),
    (
        *("InternLMForCausalLM", "x", {}),
        "<s><|User|>:q1<eoh>\n<|Bot|>:a1<eoa>\n<|User|>:q2<eoh>\n<|Bot|>:",
    ),
    ("InternLM2ForCausalLM", "x", {}, "<s>" + CHATML),
    (
        *("AquilaModel", "x", {}),
        AQUILA + "###Human: q1###Assistant: a1###Human: q2###Assistant:",
    ),
    (
        *("AquilaForCausalLM", "BAAI/AquilaChat2-7B", {}),
        "<|startofpiece|>q1<|endofpiece|>a1</s><|startofpiece|>q2<|endofpiece|>",
    ),
    (
        *("XverseForCausalLM", "x", {}),
        "Human: q1\n\nAssistant: a1<|endoftext|>Human: q2\n\nAssistant: ",
    ),
    (
        *("OrionForCausalLM", "x", {}),
        "<s>Human: q1\n\nAssistant: </s>a1</s>Human: q2\n\nAssistant: </s>",
    ),
    (
        *("ChatGLMModel", "THUDM/chatglm2-6b", {}),
        "[gMASK]sop[Round 1]\n\n问：q1\n\n答：a1\n\n[Round 2]\n\n问：q2\n\n答：",
    ),
    (
        *("ChatGLMForConditionalGeneration", "/cache/models--ZhipuAI--chatglm3-6b/snapshots/1", {}),
        "[gMASK]sop<|user|>\n q1<|assistant|>\n a1<|user|>\n q2<|assistant|>",
    ),
    (
        *("LlamaForCausalLM", "lmsys/vicuna-13b-v1.3", {}),
        f"<s>{VICUNA} USER: q1 ASSISTANT: a1</s>USER: q2 ASSISTANT:",
    ),
    (
        *("LLaMAForCausalLM", "young-geng/koala", {}),
        "<s>BEGINNING OF CONVERSATION: USER: q1 GPT: a1</s>USER: q2 GPT:",
    ),
    (
        *("LlamaForCausalLM", "x", {"_name_or_path": "someone/alpaca-7b"}),
        f"<s>{ALPACA}\n\n### Instruction:\nq1\n\n### Response:\na1</s>"
        "### Instruction:\nq2\n\n### Response:\n",
    ),
    (
        *("LlamaForCausalLM", "modelscope/Llama-2-7b-chat-ms", {}),
        "<s>[INST] q1 [/INST] a1 </s><s>[INST] q2 [/INST]",
    ),
    (
        *("MistralForCausalLM", "mistralai/Mistral-7B-Instruct-v0.1", {}),
        "<s>[INST] q1 [/INST] a1</s>[INST] q2 [/INST]",
    ),
    (
        *("JAISLMHeadModel", "x", {}),
        "### Instruction: Your name is Jais. You are a helpful, respectful and honest assistant. "
        "You answer in Arabic and English." + JAIS_END,
    ),
    (
        *("DeciLMForCausalLM", "x", {}),
        "### User:\nq1\n### Assistant:\na1\n### User:\nq2\n### Assistant:\n",
    ),
    (
        *("DeciLMForCausalLM", "x", {"block_configs": [{}]}),
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nq1<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\na1<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nq2<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    (
        *("StableLMEpochForCausalLM", "x", {}),
        "<|user|>\nq1<|endoftext|>\n<|assistant|>\na1<|endoftext|>\n"
        "<|user|>\nq2<|endoftext|>\n<|assistant|>\n",
    ),
    (
        *("RWForCausalLM", "tiiuae/falcon-7b-instruct", {}),
        "User: q1\nAssistant: a1\nUser: q2\nAssistant:",
    ),
    (
        *("OLMoForCausalLM", "x", {}),
        "<|user|>\nq1\n<|assistant|>\na1</s>\n<|user|>\nq2\n<|assistant|>\n",
    ),
    (
        *("GPTNeoXForCausalLM", "databricks/dolly-v2-3b", {}),
        f"{ALPACA}\n\n### Instruction:\nq1\n\n### Response:\na1\n\n### End\n\n"
        "### Instruction:\nq2\n\n### Response:\n",
    ),
]


def bare_tokenizer() -> Any:
    tokenizer = copy.deepcopy(tokenizers.byte_level())
    tokenizer.chat_template = None
    tokenizer.bos_token, tokenizer.eos_token = "<s>", "</s>"
    return tokenizer


@pytest.mark.parametrize(("architecture", "name", "config", "expected"), FORMATS)
def test_two_turns_are_written_as_the_family_was_trained(
    architecture: str, name: str, config: dict[str, Any], expected: str
) -> None:
    tokenizer = bare_tokenizer()
    give_chat_template(tokenizer, config, architecture, name)
    prompt = ChatRenderer(tokenizer).render(TURNS)
    assert prompt.text == expected
    assert not prompt.add_special_tokens


@pytest.mark.parametrize("name", chat_template_names())
def test_system_text_and_open_answers(name: str) -> None:
    renderer = ChatRenderer(bare_tokenizer(), named_chat_template(name))
    text = renderer.render([{**SYSTEM, "content": "be brief"}, *TURNS]).text
    assert text is not None
    assert text.count("be brief") == 1 and text.index("be brief") < text.index("q1")
    options = ChatOptions(add_generation_prompt=False, continue_final_message=True)
    opened = renderer.render(TURNS[:2], options).text
    assert opened is not None and opened.endswith("a1")
    bare = bare_tokenizer()
    bare.bos_token = bare.eos_token = None
    assert "None" not in str(ChatRenderer(bare, named_chat_template(name)).render(TURNS).text)


def test_system_text_of_the_formats_that_have_a_place_for_it() -> None:
    system = {
        "chatml": "<|im_start|>system\ns<|im_end|>\n",
        "qwen": "<|im_start|>system\ns<|im_end|>\n",
        "chatglm3": "[gMASK]sop<|system|>\n s<|user|>",
        "deci": "### System:\ns\n### User:\n",
        "llama2": "<s>[INST] <<SYS>>\ns\n<</SYS>>\n\nq1 [/INST]",
        "baichuan2": "s<reserved_106>q1",
        "jais": "### Instruction: s\n\nComplete",
        "internlm": "<s><|System|>:s\n<|User|>:q1",
        "vicuna": "<s>s USER: q1",
    }
    for name, start in system.items():
        renderer = ChatRenderer(bare_tokenizer(), named_chat_template(name))
        assert str(renderer.render([SYSTEM, *TURNS]).text).startswith(start), name


def test_unknown_roles_and_orders_are_refused() -> None:
    renderer = ChatRenderer(bare_tokenizer(), named_chat_template("vicuna"))
    with pytest.raises(ValueError, match="has no role tool"):
        renderer.render([*TURNS, {"role": "tool", "content": "x"}])
    renderer = ChatRenderer(bare_tokenizer(), named_chat_template("llama2"))
    with pytest.raises(ValueError, match="take turns, the user first"):
        renderer.render(TURNS[1:])


def test_first_revisions_of_internlm2_have_other_marks() -> None:
    tokenizer = bare_tokenizer()
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["[UNUSED_TOKEN_145]", "[UNUSED_TOKEN_146]"]}
    )
    give_chat_template(tokenizer, {}, "InternLM2ForCausalLM", "x")
    prompt = ChatRenderer(tokenizer).render(TURNS[:1])
    assert prompt.text == "<s>[UNUSED_TOKEN_146]user\nq1[UNUSED_TOKEN_145]\n" + (
        "[UNUSED_TOKEN_146]assistant\n"
    )
    assert prompt.ends == ("[UNUSED_TOKEN_145]",)


def test_choice_is_said_and_own_template_wins(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    tokenizer = bare_tokenizer()
    give_chat_template(tokenizer, {}, "QWenLMHeadModel", "x")
    assert "'qwen'" in caplog.text and "--chat-template" in caplog.text
    own = copy.deepcopy(tokenizers.byte_level())
    give_chat_template(own, {}, "QWenLMHeadModel", "x")
    assert own.chat_template == tokenizers.byte_level().chat_template
    given = ChatRenderer(tokenizer, "{{ messages[0].content }}").render(TURNS)
    assert (given.text, given.ends) == ("q1", ())


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("LlamaForCausalLM", "meta-llama/Llama-2-7b"),
        ("LlamaForCausalLM", "/home/koala/models/open_llama_13b"),
        ("LlamaForCausalLM", "01-ai/Yi-6B"),
        ("GPTNeoXForCausalLM", "EleutherAI/pythia-70m"),
        ("MistralForCausalLM", "mistralai/Mistral-7B-v0.1"),
    ],
)
def test_models_of_no_known_format_get_none(architecture: str, name: str) -> None:
    tokenizer = bare_tokenizer()
    give_chat_template(tokenizer, {}, architecture, name)
    assert tokenizer.chat_template is None


def test_ends_come_with_the_format() -> None:
    assert ends_of_format(named_chat_template("qwen")) == ("<|im_end|>", "<|endoftext|>")
    assert ends_of_format(named_chat_template("chatglm3")) == ("<|user|>", "<|observation|>")
    assert ends_of_format(named_chat_template("internlm")) == ("<eoa>",)
    assert "###" in ends_of_format(named_chat_template("aquila"))
    assert ends_of_format("{{ messages }}") == ()


def test_format_can_be_named() -> None:
    renderer = ChatRenderer(bare_tokenizer(), load_chat_template("vicuna"))
    assert renderer.template(ChatOptions()) == named_chat_template("vicuna")
    with pytest.raises(ValueError, match=r"'vicunya'; did you mean vicuna\?.*, vicuna, xverse"):
        ChatRenderer(bare_tokenizer(), load_chat_template("vicunya"))
    with pytest.raises(ValueError, match=r"give the name chatml, the path"):
        load_chat_template("./examples/template_chatml.jinja")
