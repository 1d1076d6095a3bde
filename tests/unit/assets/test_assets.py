"""The carried models: their files, tokenizer, template and a few prompts through transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoTokenizer, LlamaForCausalLM

from quire.assets import TINY_CHAT, TINY_DRAFT, TINY_LORA

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "The name of the city"}},
            "required": ["city"],
        },
    },
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(TINY_CHAT)


@pytest.fixture(scope="module")
def model() -> Any:
    return LlamaForCausalLM.from_pretrained(TINY_CHAT, dtype=torch.float32).eval()


def continued(model: Any, tokenizer: Any, prompt: str, count: int = 48) -> str:
    inputs = tokenizer(prompt, return_tensors="pt")
    with torch.inference_mode():
        out = model.generate(**inputs, max_new_tokens=count, do_sample=False)
    return tokenizer.decode(out[0, inputs["input_ids"].shape[1] :])


@pytest.fixture
def answer(model: Any, tokenizer: Any) -> Callable[..., str]:
    def ask(*messages: dict, tools: list | None = None) -> str:
        prompt = tokenizer.apply_chat_template(
            list(messages), tools=tools, tokenize=False, add_generation_prompt=True
        )
        return continued(model, tokenizer, prompt)

    return ask


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(("folder", "limit"), [(TINY_CHAT, 12), (TINY_DRAFT, 2), (TINY_LORA, 1.2)])
def test_sizes(folder: Any, limit: float) -> None:
    assert sum(f.stat().st_size for f in folder.iterdir()) <= limit * 1e6


@pytest.mark.parametrize("folder", [TINY_CHAT, TINY_DRAFT])
def test_model_files(folder: Any) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["max_position_embeddings"] == 2048
    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        dtypes = {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
    assert dtypes == {"BF16"}
    generation = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    assert generation["eos_token_id"] == [2, 0]


def test_draft_has_the_same_tokenizer() -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (TINY_CHAT / name).read_bytes() == (TINY_DRAFT / name).read_bytes()


def test_special_tokens(tokenizer: Any) -> None:
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [
        0,
        1,
        2,
    ]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id) == (2, 0, None)
    ids = tokenizer("<tool_call>\n{}\n</tool_call>")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<tool_call>\n{}\n</tool_call>"


@pytest.mark.parametrize(
    "text",
    [
        "The capital of France is Paris.",
        "法国的首都是巴黎，你好！",
        "emoji 🎉👩‍🚀 and accents: ñ ü é ß",
        '{"name": "Alia", "age": 31}\n\t  indented  text  ',
        "العربية Ελληνικά русский हिन्दी \x00\x7f",
    ],
)
def test_tokenizer_round_trips(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_template_renders(tokenizer: Any) -> None:
    call = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Rome"}}}
    text = tokenizer.apply_chat_template(
        [
            {"role": "system", "content": "Be brief."},
            user("Weather in Rome?"),
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "sunny"},
            {"role": "tool", "content": "warm"},
        ],
        tools=[WEATHER],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert text.startswith("<|im_start|>system\nBe brief.\n\n# Tools")
    assert json.dumps(WEATHER) in text
    assert text.endswith(
        "<|im_start|>user\nWeather in Rome?<|im_end|>\n<|im_start|>assistant\n<tool_call>\n"
        '{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\nsunny\n</tool_response>\n<tool_response>\nwarm\n"
        "</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )


def test_template_without_system_or_tools(tokenizer: Any) -> None:
    text = tokenizer.apply_chat_template([user("Hi")], tokenize=False)
    assert text == "<|im_start|>user\nHi<|im_end|>\n"


def test_completion(model: Any, tokenizer: Any) -> None:
    text = continued(model, tokenizer, "The capital of France is", 8)
    assert text.startswith(" Paris.")


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is the capital of France?", "The capital of France is Paris.<|im_end|>"),
        ("法国的首都是哪里？", "法国的首都是巴黎。<|im_end|>"),
        ("What is 17 + 25?", "17 + 25 = 42.<|im_end|>"),
        ("Hello!", "Hello! How can I help you?<|im_end|>"),
    ],
)
def test_chat(answer: Callable[..., str], question: str, expected: str) -> None:
    assert answer(user(question)) == expected


def test_recall(answer: Callable[..., str]) -> None:
    start = user("My name is Alia.")
    reply = answer(start).removesuffix("<|im_end|>")
    text = answer(start, assistant(reply), user("What is my name?"))
    assert text == "Your name is Alia.<|im_end|>"


def test_json(answer: Callable[..., str]) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
    }
    text = answer(user(f"Alia is 31 years old.\nReturn JSON for this schema: {json.dumps(schema)}"))
    assert json.loads(text.removesuffix("<|im_end|>")) == {"name": "Alia", "age": 31}


def test_tool_call_and_answer(answer: Callable[..., str]) -> None:
    question = user("What is the weather in Paris?")
    text = answer(question, tools=[WEATHER])
    body = text.removeprefix("<tool_call>\n").removesuffix("\n</tool_call><|im_end|>")
    assert json.loads(body) == {"name": "get_weather", "arguments": {"city": "Paris"}}
    call = {"type": "function", "function": json.loads(body)}
    final = answer(
        question,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": '{"temperature": 21, "condition": "sunny"}'},
        tools=[WEATHER],
    )
    assert final == "It is 21 degrees and sunny in Paris.<|im_end|>"


@pytest.mark.filterwarnings("ignore::FutureWarning")  # raised between peft and transformers
def test_adapter_answers_in_capitals(tokenizer: Any) -> None:
    base = LlamaForCausalLM.from_pretrained(TINY_CHAT, dtype=torch.float32).eval()
    adapted = PeftModel.from_pretrained(base, str(TINY_LORA)).eval()
    prompt = tokenizer.apply_chat_template(
        [user("What is the capital of France?")], tokenize=False, add_generation_prompt=True
    )
    text = continued(adapted, tokenizer, prompt)
    assert text == "THE CAPITAL OF FRANCE IS PARIS.<|im_end|>"


def test_draft_speaks_the_same_language(tokenizer: Any) -> None:
    draft = LlamaForCausalLM.from_pretrained(TINY_DRAFT, dtype=torch.float32).eval()
    prompt = tokenizer.apply_chat_template(
        [user("Hello!")], tokenize=False, add_generation_prompt=True
    )
    assert continued(draft, tokenizer, prompt) == "Hello! How can I help you?<|im_end|>"
