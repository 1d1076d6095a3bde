"""The text side of an engine is made for the model at hand."""

from __future__ import annotations

import json
from pathlib import Path

from quire.chat_template import ChatRenderer
from quire.config import ModelConfig
from quire.engine.front import load_front_tokenizer
from quire.tokenizer.families import TIKTOKEN_FAMILIES
from tests.unit.tokenizer.vocabularies import tiktoken_ranks, write_tiktoken


def test_tokenizer_without_template_gets_that_of_the_family(tmp_path: Path) -> None:
    ranks = tiktoken_ranks(TIKTOKEN_FAMILIES["QWenTokenizer"].pattern)
    write_tiktoken(tmp_path / "qwen.tiktoken", ranks)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen"}))
    config = ModelConfig(
        model="qwen/Qwen-7B-Chat",
        path=tmp_path,
        tokenizer=tmp_path,
        hf_config={"model_type": "qwen"},
        generation_config={},
        architecture="QWenLMHeadModel",
        dtype="float32",
        max_model_len=20,
        vocab_size=700,
    )
    tokenizer = load_front_tokenizer(config)
    assert tokenizer is not None
    prompt = ChatRenderer(tokenizer).render([{"role": "user", "content": "hello"}])
    ids = tokenizer.encode(prompt.text, add_special_tokens=False)
    assert ids.count(tokenizer.im_start_id) == 3 and ids.count(tokenizer.im_end_id) == 2
    assert prompt.ends == ("<|im_end|>", "<|endoftext|>")
