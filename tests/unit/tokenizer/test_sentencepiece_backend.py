"""A sentencepiece vocabulary gives the ids and texts that sentencepiece itself gives."""

from __future__ import annotations

import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from quire.tokenizer.sentencepiece_backend import any_of, sentencepiece_backend
from quire.tokenizer.sentencepiece_file import read_sentencepiece
from tests.unit.tokenizer.vocabularies import original_sentencepiece, sentencepiece_model

MARKS = ("<eoa>", "<reserved_1>", "<reserved_102>")
SYMBOLS = (*MARKS, "ab")
KINDS: list[dict[str, Any]] = [
    {"model_type": "bpe", "byte_fallback": True},
    {"model_type": "bpe", "byte_fallback": True, "user_defined_symbols": SYMBOLS},
    {"model_type": "bpe", "byte_fallback": True, "add_dummy_prefix": False},
    {"model_type": "bpe", "remove_extra_whitespaces": True},
    {"model_type": "bpe", "normalization_rule_name": "nmt_nfkc", "user_defined_symbols": MARKS},
    {"model_type": "unigram", "byte_fallback": True},
    {"model_type": "unigram", "user_defined_symbols": SYMBOLS, "add_dummy_prefix": False},
    {"model_type": "unigram", "byte_fallback": True, "normalization_rule_name": "nmt_nfkc"},
    {
        "model_type": "unigram",
        "normalization_rule_name": "nmt_nfkc",
        "remove_extra_whitespaces": True,
        "user_defined_symbols": MARKS,
    },
]
PIECES = st.sampled_from(
    [
        *(
            "hello",
            "world",
            "The",
            " capital",
            "ab",
            "aba",
            "aa",
            "a",
            " ",
            "  ",
            "   ",
            "\n",
            "\t",
        ),
        *(
            "\r\n",
            "你好",
            "世",
            "界",
            "é",
            "e",
            "\u0301",
            "\u0323",
            "\u0302",
            "①",
            "ﬁ",
            "１",
            "🙂",
            "👍🏽",
        ),
        *("한", "ᄒ", "ᅡ", "\u200b", "\u00a0", "\u3000", "\u2581", "<0x41>", "<eoa>", "<", "0x"),
        *("<reserved_1>", "<reserved_102>", "<reserved_1", "\u0000", "П", "ривет"),
    ]
)
NONCHARACTER = "\U000ffffe"  # that splits graphemes for the rules of nmt_nfkc, and gets lost
TEXTS = st.lists(PIECES, max_size=10).map("".join) | st.text(max_size=12)


def backend(tmp_path_factory: pytest.TempPathFactory, kind: dict[str, Any]) -> Tokenizer:
    file = tmp_path_factory.mktemp("model") / "tokenizer.model"
    file.write_bytes(sentencepiece_model(**kind))
    return sentencepiece_backend(read_sentencepiece(file))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_ids_and_texts_are_those_of_sentencepiece(
    kind: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    original = original_sentencepiece(sentencepiece_model(**kind))
    tokenizer = backend(tmp_path_factory, kind)
    assert [tokenizer.id_to_token(i) for i in range(len(original))] == [
        original.id_to_piece(i) for i in range(len(original))
    ]

    @settings(max_examples=150, deadline=None)
    @given(TEXTS)
    @example("\u00aa\u1ae0")  # a mark of Unicode 17
    def check(text: str) -> None:
        assume("nmt_nfkc" not in kind.values() or has_marks_in_order(text))
        assume("nmt_nfkc" not in kind.values() or NONCHARACTER not in text)
        ids = original.encode(text)
        assert tokenizer.encode(text, add_special_tokens=False).ids == ids
        if original.unk_id() not in ids:
            assert tokenizer.decode(ids) == original.decode(ids)

    check()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_a_prefix_of_the_whole_text_only_replaces_none_of_its_own_spaces(
    kind: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "tokenizer.model"
    file.write_bytes(sentencepiece_model(**kind))
    original = original_sentencepiece(file.read_bytes())
    tokenizer = sentencepiece_backend(read_sentencepiece(file), prefix_each_part=False)
    texts = [
        f"{begin}{text}" for begin in ("", " ", "   ", "▁", " ▁") for text in ("", "a", "The ")
    ]
    for text in [*texts, "\n a", "hello  world ", "<eoa>a", " <eoa> a"]:
        ids = original.encode(text)
        assert tokenizer.encode(text, add_special_tokens=False).ids == ids, text
        if original.unk_id() not in ids:
            assert tokenizer.decode(ids) == original.decode(ids)


def has_marks_in_order(text: str) -> bool:
    """Unicode's order; sentencepiece does not bring other texts into it, we do."""
    decomposed = "".join(unicodedata.normalize("NFKD", char) for char in text)
    classes = [unicodedata.combining(char) for char in decomposed]
    return all(not 0 < after < before for before, after in pairwise(classes))


def test_unknown_characters_of_one_run_are_one_token(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    tokenizer = backend(tmp_path_factory, {"model_type": "bpe"})
    assert tokenizer.encode("a🙂👍\U0001f9ff a").tokens.count("<unk>") == 1


def test_renamed_piece_is_not_found_in_a_text(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.model"
    file.write_bytes(sentencepiece_model(model_type="bpe", user_defined_symbols=SYMBOLS))
    tokenizer = sentencepiece_backend(read_sentencepiece(file), {3: "<|im_end|>"})
    assert tokenizer.id_to_token(3) == "<|im_end|>"
    assert 3 not in tokenizer.encode("a<eoa>").ids
    assert 4 in tokenizer.encode("a<reserved_1>").ids


def test_prefix_of_the_whole_text_only(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.model"
    file.write_bytes(sentencepiece_model(model_type="bpe"))
    parts = {
        each: sentencepiece_backend(read_sentencepiece(file), prefix_each_part=each)
        for each in (True, False)
    }
    for tokenizer in parts.values():
        tokenizer.add_special_tokens(["</s>"])
    assert parts[True].encode("a</s>a").tokens == ["▁a", "</s>", "▁a"]
    assert parts[False].encode("a</s>a").tokens == ["▁a", "</s>", "a"]
    assert parts[False].encode("</s>a").tokens == ["</s>", "a"]
    assert parts[False].encode(" a</s> a").tokens == ["▁", "▁a", "</s>", "▁a"]


@given(st.lists(st.text("ab<(.", min_size=1, max_size=4), min_size=1, max_size=6), st.text("ab<(."))
def test_any_of_finds_the_longest(texts: list[str], text: str) -> None:
    import re

    found = re.match(any_of(texts), text)
    longest = max((one for one in texts if text.startswith(one)), key=len, default=None)
    assert (found.group() if found else None) == longest
