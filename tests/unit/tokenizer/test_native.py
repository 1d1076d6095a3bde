"""Folders whose tokenizer is a vocabulary and remote code load as the code would have it."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from quire.engine.detokenizer import make_detokenizer
from quire.tokenizer.families import TIKTOKEN_FAMILIES
from quire.tokenizer.loading import load_tokenizer
from quire.tokenizer.vocabulary import Vocabulary
from tests.unit.tokenizer.vocabularies import (
    original_sentencepiece,
    sentencepiece_model,
    tiktoken_ranks,
    write_tiktoken,
)

TEXT = "The capital of France is Paris.\n  你好世界 🙂 naïve\tx"
MODEL = sentencepiece_model(
    model_type="bpe", byte_fallback=True, user_defined_symbols=("<eoh>", "<eoa>")
)
ORIGINAL = original_sentencepiece(MODEL)
SIZE = len(ORIGINAL)


def folder(path: Path, tokenizer_class: str, **config: Any) -> Path:
    (path / "tokenizer.model").write_bytes(MODEL)
    write_config(path, tokenizer_class, **config)
    return path


def write_config(path: Path, tokenizer_class: str, **config: Any) -> None:
    auto_map = {"AutoTokenizer": [f"tokenization.{tokenizer_class}", None]}
    (path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": tokenizer_class, "auto_map": auto_map, **config})
    )
    (path / "tokenization.py").write_text("raise RuntimeError('must not run')")


def qwen(path: Path, tokenizer_class: str = "QWenTokenizer") -> Path:
    family = TIKTOKEN_FAMILIES[tokenizer_class]
    write_tiktoken(path / family.file, tiktoken_ranks(family.pattern))
    write_config(path, tokenizer_class)
    return path


@pytest.mark.parametrize("trust_remote_code", [False, True])
@pytest.mark.parametrize(
    ("tokenizer_class", "config", "head"),
    [
        ("BaichuanTokenizer", {"add_bos_token": False}, []),
        ("BaiChuanTokenizer", {}, [1]),
        ("InternLMTokenizer", {}, [1]),
        ("InternLM2Tokenizer", {"add_bos_token": True}, [1]),
        ("OrionTokenizer", {"add_bos_token": False}, []),
        ("YiTokenizer", {"add_bos_token": False}, []),
        ("LlamaTokenizer", {"bos_token": {"content": "<s>"}}, [1]),
        ("LLaMATokenizer", {"bos_token": "", "eos_token": "", "unk_token": ""}, [1]),
        ("LLaMATokenizer", {"bos_token": {"content": ""}}, [1]),
        ("MistralTokenizer", {}, [1]),
        ("SkyworkTokenizer", {}, [1]),
        ("ChatGLMTokenizer", {}, [SIZE + 1, SIZE + 3]),
    ],
)
def test_sentencepiece_classes_give_the_ids_of_the_vocabulary(
    tmp_path: Path,
    tokenizer_class: str,
    config: dict[str, Any],
    head: list[int],
    trust_remote_code: bool,
) -> None:
    path = folder(tmp_path, tokenizer_class, **config)
    tokenizer = load_tokenizer(path, trust_remote_code=trust_remote_code)
    assert tokenizer.encode(TEXT) == [*head, *ORIGINAL.encode(TEXT)]
    assert tokenizer.encode("") == head
    assert tokenizer.decode(tokenizer.encode(TEXT), skip_special_tokens=True) == TEXT
    assert (tokenizer.eos_token_id, tokenizer.unk_token_id) == (2, 0)


def test_eos_is_added_where_the_config_says_so(tmp_path: Path) -> None:
    path = folder(tmp_path, "LlamaTokenizer", add_bos_token=False, add_eos_token=True)
    assert load_tokenizer(path).encode("a") == [*ORIGINAL.encode("a"), 2]


@pytest.mark.parametrize(
    "config",
    [
        *({"model_type": name} for name in ("orion", "mistral", "mixtral", "persimmon", "phi3")),
        {"model_type": "nobody-knows-it", "tokenizer_class": "LLaMATokenizer"},
    ],
)
def test_class_follows_from_the_config_of_the_model(tmp_path: Path, config: dict[str, str]) -> None:
    (tmp_path / "tokenizer.model").write_bytes(MODEL)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_tokenizer(tmp_path).encode(TEXT) == [1, *ORIGINAL.encode(TEXT)]


@pytest.mark.parametrize(
    "file",
    [
        ("tokenizer_config.json", {"tokenizer_class": "GemmaTokenizer"}),
        ("tokenizer_config.json", {"tokenizer_class": "GemmaTokenizerFast"}),
        ("config.json", {"model_type": "gemma2"}),
    ],
)
def test_gemma_begins_with_bos_and_no_space(
    tmp_path: Path, file: tuple[str, dict[str, str]]
) -> None:
    model = sentencepiece_model(
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=False,
        user_defined_symbols=("<start_of_turn>", "<end_of_turn>"),
        **{"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3},
        **{"pad_piece": "<pad>", "eos_piece": "<eos>", "bos_piece": "<bos>"},
    )
    (tmp_path / "tokenizer.model").write_bytes(model)
    (tmp_path / file[0]).write_text(json.dumps(file[1]))
    tokenizer, original = load_tokenizer(tmp_path), original_sentencepiece(model)
    text = f"<start_of_turn>user\n{TEXT}<end_of_turn>"
    assert tokenizer.encode(text) == [2, *original.encode(text)]
    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text
    named = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token)
    assert named == ("<bos>", "<eos>", "<pad>", "<unk>")
    assert len(tokenizer) == len(original)


def test_streamed_text_has_the_right_spaces(tmp_path: Path) -> None:
    vocabulary = Vocabulary(load_tokenizer(folder(tmp_path, "InternLMTokenizer")))
    ids = vocabulary.tokenizer.encode(TEXT, add_special_tokens=False)
    stream = make_detokenizer(vocabulary, prompt_token_ids=[1, *ids[:3]])
    pieces = [stream.feed([token_id]) for token_id in ids[3:]]
    assert ORIGINAL.decode(ids[:3]) + "".join(pieces) + stream.finish() == TEXT


def test_special_tokens_are_found_and_parts_are_prefixed(tmp_path: Path) -> None:
    """As the code of these families does it: sentencepiece is called for each part."""
    tokenizer = load_tokenizer(folder(tmp_path, "OrionTokenizer", add_bos_token=False))
    ids = tokenizer.encode("Human: a</s>hello<eoa>")
    assert ids == [*ORIGINAL.encode("Human: a"), 2, *ORIGINAL.encode("hello<eoa>")]
    assert ids[-1] == ORIGINAL.piece_to_id("<eoa>")


def test_marks_of_baichuan_stand_between_texts(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(folder(tmp_path, "BaichuanTokenizer", add_bos_token=False))
    user, assistant = tokenizer.convert_ids_to_tokens([195, 196])
    text = f"{user}hello{assistant}world"
    assert tokenizer.encode(text) == [
        195,
        *ORIGINAL.encode("hello"),
        196,
        *ORIGINAL.encode("world"),
    ]
    assert {195, 196} <= Vocabulary(tokenizer).special_ids


def test_chatglm3_has_role_tokens_after_the_vocabulary(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(folder(tmp_path, "ChatGLMTokenizer"))
    names = ["[MASK]", "[gMASK]", "[sMASK]", "sop", "eop"]
    roles = ["<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]
    ids = list(range(SIZE, SIZE + 9))
    assert tokenizer.convert_tokens_to_ids([*names, *roles]) == ids
    text = "[gMASK]sop<|user|>\n a soprano<|assistant|>"
    assert tokenizer.encode(text, add_special_tokens=False) == [
        *(SIZE + 1, SIZE + 3, SIZE + 6),
        *ORIGINAL.encode("\n a soprano"),
        SIZE + 7,
    ]
    vocabulary = Vocabulary(tokenizer)
    assert vocabulary.special_token_id("<|observation|>") == SIZE + 8
    assert tokenizer.pad_token_id == 0


def test_chatglm2_has_no_role_tokens(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(
        folder(tmp_path, "ChatGLMTokenizer", name_or_path="THUDM/chatglm2-6b")
    )
    assert len(tokenizer) == SIZE + 5
    assert tokenizer.encode("<|user|>")[2:] == ORIGINAL.encode("<|user|>")


def test_files_beside_the_vocabulary_rename_and_add_tokens(tmp_path: Path) -> None:
    added = {
        "0": {"content": "<unk>", "special": True},
        "7": {"content": "<|im_end|>", "special": True},
        str(SIZE + 1): {"content": "<think>", "special": False},
    }
    path = folder(tmp_path, "InternLM2Tokenizer", add_bos_token=False, added_tokens_decoder=added)
    (path / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    tokenizer = load_tokenizer(path)
    assert tokenizer.encode("<|im_end|><think>") == [7, SIZE + 1]
    assert tokenizer.eos_token_id == 7
    assert tokenizer.convert_ids_to_tokens(7) == "<|im_end|>"
    assert {7} <= Vocabulary(tokenizer).special_ids
    assert SIZE + 1 not in Vocabulary(tokenizer).special_ids


def test_qwen_has_its_special_tokens_behind_the_vocabulary(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(qwen(tmp_path))
    size = len(tiktoken_ranks(TIKTOKEN_FAMILIES["QWenTokenizer"].pattern))
    assert len(tokenizer) == size + 208
    assert (tokenizer.eod_id, tokenizer.im_start_id, tokenizer.im_end_id) == (
        *(size, size + 1, size + 2),
    )
    assert tokenizer.convert_tokens_to_ids(["<|extra_0|>", "<|extra_204|>"]) == [
        size + 3,
        size + 207,
    ]
    assert tokenizer.eos_token == "<|endoftext|>" and tokenizer.bos_token is None
    ids = tokenizer.encode(f"<|im_start|>user\n{TEXT}<|im_end|>")
    assert (ids[0], ids[-1]) == (size + 1, size + 2)
    assert tokenizer.decode(ids, skip_special_tokens=True) == f"user\n{TEXT}"


def test_published_ids_of_qwen_and_arcade() -> None:
    from quire.tokenizer.native import _special_ids

    ids = _special_ids(151643, TIKTOKEN_FAMILIES["QWenTokenizer"])
    assert (ids["<|im_end|>"], ids["<|extra_0|>"], ids["<|extra_204|>"]) == (151645, 151646, 151850)
    ids = _special_ids(100256, TIKTOKEN_FAMILIES["Arcade100kTokenizer"])
    assert (ids["<|endoftext|>"], ids["<|im_end|>"]) == (100257, 100278)
    assert sorted(ids.values()) == list(range(100256, 100289))


def test_glm4_reads_tiktoken_under_the_other_name(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(qwen(tmp_path, "ChatGLM4Tokenizer"))
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("12")[:2]) == ["[gMASK]", "<sop>"]


@pytest.mark.parametrize("make", [qwen, lambda path: folder(path, "ChatGLMTokenizer")])
def test_it_can_be_copied_and_saved(tmp_path: Path, make: Any) -> None:
    tokenizer = load_tokenizer(make(tmp_path))
    tokenizer.save_pretrained(tmp_path / "saved")
    saved = load_tokenizer(tmp_path / "saved")
    for other in (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer)), saved):
        assert other.encode(TEXT) == tokenizer.encode(TEXT)
        assert other.all_special_tokens == tokenizer.all_special_tokens


def test_whole_tokenizer_file_of_a_known_class_needs_no_code(tmp_path: Path) -> None:
    from tests.fakes import tokenizers

    tokenizers.byte_level().save_pretrained(tmp_path)
    write_config(tmp_path, "OLMoTokenizerFast", eos_token="<|im_end|>")
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode(TEXT) == tokenizers.byte_level().encode(TEXT)
    assert tokenizer.eos_token == "<|im_end|>"
