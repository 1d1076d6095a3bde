"""Tiny models as their hubs have them: weights of `tests/models/goldens`, and small tokenizers."""

from __future__ import annotations

import json
from pathlib import Path

from quire.tokenizer.families import TIKTOKEN_FAMILIES
from tests.fakes.hub import FakeRepository
from tests.unit.tokenizer.vocabularies import (
    sentencepiece_model,
    tiktoken_ranks,
    write_tiktoken,
)

_GOLDENS = Path(__file__).parents[1] / "models" / "goldens"
_NUM_TOKENS = 300  # of the models' 320; special tokens follow


def qwen_files(folder: Path) -> dict[str, bytes]:
    """Qwen-1 with its tiktoken vocabulary; ``folder`` is a place to write in."""
    family = TIKTOKEN_FAMILIES["QWenTokenizer"]
    write_tiktoken(folder / family.file, tiktoken_ranks(family.pattern, _NUM_TOKENS))
    config = {
        "tokenizer_class": "QWenTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_qwen.QWenTokenizer", None]},
        "model_max_length": 256,
    }
    return {
        **_golden("qwen"),
        family.file: (folder / family.file).read_bytes(),
        "tokenizer_config.json": json.dumps(config).encode(),
    }


def chatglm_files() -> dict[str, bytes]:
    """ChatGLM3 with its sentencepiece vocabulary, and Python code as its tokenizer."""
    config = {
        "tokenizer_class": "ChatGLMTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_chatglm.ChatGLMTokenizer", None]},
        "name_or_path": "ZhipuAI/chatglm3-6b",
    }
    return {
        **_golden("chatglm"),
        "tokenizer.model": sentencepiece_model(vocab_size=_NUM_TOKENS),
        "tokenizer_config.json": json.dumps(config).encode(),
        "tokenization_chatglm.py": (Path(__file__).parent / "chatglm_code.py").read_bytes(),
    }


def repository(files: dict[str, bytes], revision: str) -> FakeRepository:
    """One that has nothing but this revision, and its default one for who names none."""
    return FakeRepository(files, revisions=(revision,))


def _golden(name: str) -> dict[str, bytes]:
    return {
        file.name: file.read_bytes()
        for file in (_GOLDENS / name).iterdir()
        if file.name != "golden.json.gz"
    }
