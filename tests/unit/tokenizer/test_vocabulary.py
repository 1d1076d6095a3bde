"""Facts about single tokens."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models
from tokenizers.decoders import Decoder
from transformers import PreTrainedTokenizerFast

from quire.engine.detokenizer import make_detokenizer
from quire.tokenizer.vocabulary import Vocabulary, eos_token_ids
from tests.fakes import tokenizers


@pytest.mark.parametrize("family", ["byte_level", "byte_fallback", "word_piece"])
def test_token_texts_join_to_the_text_inside_a_text(family: str) -> None:
    vocabulary = Vocabulary(tokenizers.FAMILIES[family]())
    token_ids = vocabulary.tokenizer.encode("hello world and numbers", add_special_tokens=False)
    assert "".join(vocabulary.token_texts(token_ids)).lstrip() == "hello world and numbers"
    assert vocabulary.token_texts(token_ids) == [
        vocabulary.token_texts([token_id])[0] for token_id in token_ids
    ]


def test_part_of_a_character_shows_as_replacement() -> None:
    for family in ("byte_level", "byte_fallback"):
        vocabulary = Vocabulary(tokenizers.FAMILIES[family]())
        token_ids = vocabulary.tokenizer.encode("\U0001f9ff", add_special_tokens=False)[-4:]
        assert set(vocabulary.token_texts(token_ids)) == {"\ufffd"}


def test_special_and_unknown_tokens_have_their_own_text() -> None:
    vocabulary = Vocabulary(tokenizers.byte_level())
    end = vocabulary.tokenizer.eos_token_id
    assert vocabulary.token_texts([end, vocabulary.size + 1]) == ["<|im_end|>", ""]


@pytest.mark.parametrize("unknown", ["<unk>", None])
def test_what_bytes_without_a_token_have_is_no_byte(unknown: str | None) -> None:
    tokens = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(0x20, 0x80)), "\u2581", "a"]
    vocab = {token: i for i, token in enumerate(tokens)}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True))
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    core.decoder = decoders.Sequence(steps)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token=unknown, eos_token="</s>")
    vocabulary = Vocabulary(tokenizer)
    assert vocabulary.byte_values == {i: 0x20 + i - 2 for i in range(2, 0x60 + 2)}
    assert vocabulary.token_texts([0, vocab["<0x41>"]]) == ["<unk>", "A"]
    detokenizer = make_detokenizer(vocabulary, skip_special_tokens=False)
    token_ids = [vocab["a"], 0, vocab["a"]]
    assert detokenizer.feed(token_ids) + detokenizer.finish() == tokenizer.decode(token_ids)


@pytest.mark.parametrize("values", [range(256), range(0x80, 256), [0x20], [0x41], [0xC3]])
def test_bytes_are_known_whichever_there_are(values: Sequence[int]) -> None:
    tokens = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in values), "\u2581", "a"]
    model = models.BPE(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=[],
        unk_token="<unk>",
        byte_fallback=True,
    )
    core = Tokenizer(model)
    core.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    bytes_decoded = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
    assert Vocabulary(bytes_decoded).byte_values == {2 + i: byte for i, byte in enumerate(values)}
    core.decoder = decoders.Fuse()
    spelled_out = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
    assert Vocabulary(spelled_out).byte_values == {}


def with_unused_ids(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The same tokens; ids from 100 on are ten higher."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    vocab = state["model"]["vocab"]
    state["model"]["vocab"] = {text: i + 10 * (i >= 100) for text, i in vocab.items()}
    for token in state["added_tokens"]:
        token["id"] += 10 * (token["id"] >= 100)
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)))


@pytest.mark.parametrize("model", ["BPE", "WordLevel"])
def test_a_vocabulary_need_not_spell_every_text(model: str) -> None:
    vocabulary = Vocabulary(tokenizers.capital_letters(model))
    token_ids = vocabulary.tokenizer.encode("MKV")
    assert vocabulary.token_texts(token_ids) == ["M", "K", "V"]
    assert make_detokenizer(vocabulary).feed(token_ids) == "MKV"


@pytest.mark.parametrize(
    ("tokens", "anchor"), [(["<s>", "\t", "b"], "b"), (["\t", "<s>"], "<s>"), (["\t", " "], " ")]
)
def test_the_anchor_is_visible_and_plain_where_it_can_be(tokens: list[str], anchor: str) -> None:
    core = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}))
    core.add_special_tokens([token for token in tokens if token == "<s>"])
    vocabulary = Vocabulary(PreTrainedTokenizerFast(tokenizer_object=core))
    assert vocabulary.anchor_id == tokens.index(anchor)


@pytest.mark.parametrize("family", ["byte_level", "byte_fallback", "word_piece"])
def test_tokens_behind_unused_ids_have_their_text(family: str) -> None:
    dense = Vocabulary(tokenizers.FAMILIES[family]())
    vocabulary = Vocabulary(with_unused_ids(dense.tokenizer))
    assert vocabulary.size == dense.size + 10
    last = dense.size - 1
    assert vocabulary.token_texts([last + 10, 105]) == [*dense.token_texts([last]), ""]
    detokenizer = make_detokenizer(vocabulary)
    assert detokenizer.feed([last + 10, 105]) == make_detokenizer(dense).feed([last])


def test_unused_ids_of_a_slow_tokenizer_are_never_decoded() -> None:
    tokenizer = copy.deepcopy(tokenizers.slow_sentencepiece())
    end = len(tokenizer)
    tokenizer._added_tokens_decoder[end + 10] = AddedToken("<late>", special=False)
    tokenizer._added_tokens_encoder["<late>"] = end + 10
    vocabulary = Vocabulary(tokenizer)
    assert vocabulary.token_texts([end + 5]) == [""]
    detokenizer = make_detokenizer(vocabulary)
    assert detokenizer.feed([end + 5, end + 10]).strip() == "<late>"


def test_only_the_exact_spelling_is_a_special_token() -> None:
    vocabulary = Vocabulary(tokenizers.byte_level())
    assert vocabulary.special_token_id("<|im_end|>") == vocabulary.tokenizer.eos_token_id
    assert vocabulary.special_token_id("<|im_end|>\n") is None
    assert vocabulary.special_token_id("hello") is None
    # Here an unknown string has the id of the unknown token, which is special.
    assert Vocabulary(tokenizers.unigram()).special_token_id("<|user|>") is None


def test_eos_ids_come_from_generation_config_or_config_and_tokenizer() -> None:
    tokenizer = tokenizers.byte_level()
    own = tokenizer.eos_token_id
    assert eos_token_ids({"eos_token_id": 9}, {"eos_token_id": [7, 8]}, None) == (7, 8)
    assert eos_token_ids({"eos_token_id": 9}, {}, tokenizer) == (9, own)
    assert eos_token_ids({"eos_token_id": None}, {"eos_token_id": own}, tokenizer) == (own,)
    assert eos_token_ids({}, {}, None) == ()


class _Shouting:
    """A decoder in Python, which the library cannot write down."""

    def decode_chain(self, tokens: list[str]) -> list[str]:
        return [token.upper() for token in tokens]


def test_a_decoder_in_python_is_asked_for_every_text() -> None:
    backend = Tokenizer.from_str(tokenizers.byte_level().backend_tokenizer.to_str())
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    tokenizer.backend_tokenizer.decoder = Decoder.custom(_Shouting())
    vocabulary = Vocabulary(tokenizer)
    assert not vocabulary.is_byte_level
    assert vocabulary.decode(backend.encode("ab").ids) == "AB"
    assert Vocabulary(tokenizers.byte_level()).is_byte_level
