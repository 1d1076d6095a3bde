"""Small sentencepiece and tiktoken vocabularies, made by the original libraries."""

from __future__ import annotations

import base64
import io
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import regex
import sentencepiece

SENTENCES = [
    "The capital of France is Paris. It's a large city, isn't it?",
    "hello world  with two spaces and\ttabs, ababab aba aa aaa",
    "你好世界，今天天气很好。我们去北京吧！",
    "I like cats and dogs and naïve café résumés, déjà vu",
    "numbers 1234567890 and code: def f(x): return [x + 1, '<b>']",
    "Привет мир, как дела? １２３ ①② 안녕하세요",
] * 20


@cache
def sentencepiece_model(**options: Any) -> bytes:
    """The file as its trainer writes it."""
    file = io.BytesIO()
    settings = {
        "vocab_size": 500,
        "hard_vocab_limit": False,
        "character_coverage": 0.98,  # so that some characters are unknown
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "minloglevel": 2,
        **options,
    }
    if "user_defined_symbols" in settings:
        settings["user_defined_symbols"] = list(settings["user_defined_symbols"])
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=file, **settings
    )
    return file.getvalue()


def original_sentencepiece(model: bytes) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=model)


@cache
def tiktoken_ranks(pattern: str, size: int = 420) -> dict[bytes, int]:
    """Byte pairs, merged by how often they occur."""
    words = [
        [bytes([byte]) for byte in word.encode()]
        for text in SENTENCES[:6]
        for word in regex.findall(pattern, text)
    ]
    ranks = {bytes([byte]): byte for byte in range(256)}
    while len(ranks) < size:
        pairs = Counter(pair for word in words for pair in pairwise(word))
        (left, right), _ = pairs.most_common(1)[0]
        ranks[left + right] = len(ranks)
        words = [_merged(word, left, right) for word in words]
    return ranks


def _merged(word: list[bytes], left: bytes, right: bytes) -> list[bytes]:
    merged: list[bytes] = []
    for part in word:
        if merged and merged[-1] == left and part == right:
            merged[-1] = left + right
        else:
            merged.append(part)
    return merged


def write_tiktoken(file: Path, ranks: dict[bytes, int]) -> None:
    lines = [base64.b64encode(token).decode() + f" {rank}" for token, rank in ranks.items()]
    file.write_text("\n".join(lines) + "\n")
