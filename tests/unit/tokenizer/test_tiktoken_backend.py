"""A tiktoken vocabulary gives the ids and texts that tiktoken itself gives."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.tokenizer.families import TIKTOKEN_FAMILIES
from quire.tokenizer.tiktoken_backend import read_ranks, tiktoken_backend
from tests.unit.tokenizer.vocabularies import tiktoken_ranks, write_tiktoken

PIECES = st.sampled_from(
    [
        *("hello", " world", "The", "'S", "'ll", "'ſ", "K", "aba", "a", "12", "345", " ", "  "),
        *("\n", "\r\n", "\t", "你好", "世", "e", "\u0301", "①", "１", "²", "🙂", "👍🏽", "\u200b"),
        *("\u00a0", "\u0085", "\u2028", "<|im_start|>", "<|endoftext|>", "<|im", "\u0000", "!?"),
    ]
)
TEXTS = st.lists(PIECES, max_size=10).map("".join) | st.text(max_size=12)


@pytest.mark.parametrize("family", sorted(TIKTOKEN_FAMILIES))
def test_ids_and_texts_are_those_of_tiktoken(family: str) -> None:
    pattern, nfc = TIKTOKEN_FAMILIES[family].pattern, TIKTOKEN_FAMILIES[family].nfc
    ranks = tiktoken_ranks(pattern)
    special = {"<|endoftext|>": len(ranks), "<|im_start|>": len(ranks) + 1}
    original = tiktoken.Encoding(
        family, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special
    )
    tokenizer = tiktoken_backend(ranks, special, pattern=pattern, nfc=nfc)

    @settings(max_examples=250, deadline=None)
    @given(TEXTS)
    def check(text: str) -> None:
        seen = unicodedata.normalize("NFC", text) if nfc else text
        ids = original.encode(seen, allowed_special="all")
        assert tokenizer.encode(text, add_special_tokens=False).ids == ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == seen

    check()


def test_ranks_are_read(tmp_path: Path) -> None:
    ranks = tiktoken_ranks(TIKTOKEN_FAMILIES["QWenTokenizer"].pattern)
    write_tiktoken(tmp_path / "qwen.tiktoken", ranks)
    assert read_ranks(tmp_path / "qwen.tiktoken") == ranks


@pytest.mark.parametrize(
    ("text", "message"),
    [("IQ== 0\nhello\n", "line 2"), ("!! 0", "line 1"), ("IQ== 0", "no token for byte 0")],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "x.tiktoken"
    file.write_text(text)
    with pytest.raises(ValueError, match=f"is not a tiktoken vocabulary .{message}"):
        read_ranks(file)
