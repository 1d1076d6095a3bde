"""The bytes of tokens: what tokens of a text are joined to is the text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from quire.assets import TINY_CHAT
from quire.engine.detokenizer import make_detokenizer
from quire.structured_outputs.token_table import token_table
from quire.tokenizer.loading import load_tokenizer
from quire.tokenizer.tiktoken_backend import tiktoken_backend
from quire.tokenizer.vocabulary import Vocabulary
from tests.fakes.byte_tokenizer import EOS_ID, save_byte_tokenizer

TEXT = 'Größe {"a": [1, 2]}\n\t日本 <tool> x'


def byte_level(tmp_path: Path) -> Any:
    save_byte_tokenizer(tmp_path)
    return load_tokenizer(tmp_path)


def bundled(tmp_path: Path) -> Any:
    return load_tokenizer(TINY_CHAT)


def tiktoken_like(tmp_path: Path) -> Any:
    ranks = {bytes([byte]): byte for byte in range(256)}
    ranks |= {b" x": 256, b'": ': 257, "日".encode()[:2]: 258}
    backend = tiktoken_backend(ranks, {"<|end|>": 259}, pattern=r"\s?\S+|\s", nfc=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")


def sentencepiece_like(tmp_path: Path) -> Any:
    """Spaces are written as a mark, and characters that are no token as bytes."""
    letters = ["\u2581", *'Grße{}[]":,12xaol<t>\n\t', "\u2581x", "\u2581["]
    pieces = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    merges = [("\u2581", "x"), ("\u2581", "[")]
    core = models.BPE(vocab=vocab, merges=merges, byte_fallback=True, unk_token="<unk>")
    tokenizer = Tokenizer(core)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


@pytest.mark.parametrize("make", [byte_level, bundled, tiktoken_like, sentencepiece_like])
def test_the_tokens_of_a_text_join_to_it(make: Any, tmp_path: Path) -> None:
    tokenizer = make(tmp_path)
    tokenizer.add_tokens([AddedToken("<tool>", special=False)])
    table = token_table(tokenizer, len(tokenizer) + 5, [tokenizer.eos_token_id])
    token_ids = tokenizer.encode(TEXT, add_special_tokens=False)
    assert b"".join(table.tokens[i] for i in token_ids) == TEXT.encode()
    assert tokenizer.convert_tokens_to_ids("<tool>") in token_ids
    assert len(table) == len(tokenizer) + 5 and table.tokens[-5:] == [b""] * 5
    for token_id in tokenizer.all_special_ids:
        assert table.tokens[token_id] == b""


@pytest.mark.parametrize("make", [byte_level, bundled, tiktoken_like, sentencepiece_like])
def test_added_tokens_are_the_bytes_that_a_text_gets_of_them(make: Any, tmp_path: Path) -> None:
    """Decoders treat them like all others: a letter may be a byte, a mark a space."""
    tokenizer = make(tmp_path)
    added = ["naïve", "日本", "Ġx", "a\u2581b", "<0x4>", "<0xGG>"]
    tokenizer.add_tokens([AddedToken(token, special=False) for token in added])
    vocabulary = Vocabulary(tokenizer)
    table = token_table(tokenizer, len(tokenizer), [tokenizer.eos_token_id])
    prompt = tokenizer.encode("x", add_special_tokens=False)
    for token_id in tokenizer.convert_tokens_to_ids(added):
        detokenizer = make_detokenizer(vocabulary, prompt_token_ids=prompt)
        text = detokenizer.feed([token_id]) + detokenizer.finish()
        assert text == table.tokens[token_id].decode(errors="replace")


def test_tokens_beyond_the_models_vocabulary_are_left_out(tmp_path: Path) -> None:
    tokenizer = byte_level(tmp_path)
    table = token_table(tokenizer, 100, [EOS_ID, 200])
    assert len(table) == 100 and table.end_token_ids == (EOS_ID,)


def test_a_model_without_an_end_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="set eos_token_id in its generation_config"):
        token_table(byte_level(tmp_path), 100, [])
