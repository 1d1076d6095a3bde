"""What `tokenizer.json` says holds, whatever class the folder names."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from quire.tokenizer.loading import load_tokenizer

SENTENCES = ["hello world 12345 67890, it is 2024-01-02\n\n  f(x): don't WON'T"] * 20
TEXTS = ["in 2023", "  two  spaces", "WON'T 12345\n\n x", "<s>hello</s> world", "naïve 你好 🙂"]
NAMED = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
CLASSES = (
    *("PreTrainedTokenizerFast", "PreTrainedTokenizer", "TokenizersBackend", "NobodyKnowsIt"),
    *("GPT2Tokenizer", "GPT2TokenizerFast", "GPTNeoXTokenizer", "GPTNeoXTokenizerFast"),
    *("CodeGenTokenizer", "BloomTokenizerFast", "Qwen2Tokenizer", "Qwen2TokenizerFast"),
    *("LlamaTokenizer", "LlamaTokenizerFast", "CodeLlamaTokenizer", "GemmaTokenizer"),
    *("CohereTokenizerFast", None),
)


def byte_level(splits: Any, *, bos: bool) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.decoder = decoders.ByteLevel()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    train(made, initial_alphabet=alphabet)
    made.pre_tokenizer = pre_tokenizers.Sequence([splits, made.pre_tokenizer])
    if bos:
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", made.token_to_id("<s>"))]
        )
    return made


def with_spaces_marked() -> Tokenizer:
    """As Llama 2's file: a mark before every part of the text, and no pre-tokenizer."""
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    marks = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    made.normalizer = normalizers.Sequence(marks)
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    train(made)
    return made


def train(made: Tokenizer, **options: Any) -> None:
    special = ["<s>", "</s>", "<unk>", "<|endoftext|>"]
    trainer = trainers.BpeTrainer(special_tokens=special, show_progress=False, **options)
    made.train_from_iterator(SENTENCES, trainer)


FILES = {
    "digits": byte_level(pre_tokenizers.Digits(individual_digits=True), bos=False),
    "whitespace and BOS": byte_level(pre_tokenizers.Split(" ", "isolated"), bos=True),
    "marked spaces": with_spaces_marked(),
}


def folder(
    path: Path, file: Tokenizer, tokenizer_class: str | None, model_type: str = "llama", **more: Any
) -> Path:
    file.save(str(path / "tokenizer.json"))
    config = {"tokenizer_class": tokenizer_class, **NAMED, **more}
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    (path / "config.json").write_text(json.dumps({"model_type": model_type}))
    return path


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "mistral", "nobody-knows-it"])
@pytest.mark.parametrize("tokenizer_class", CLASSES)
def test_token_ids_are_those_of_the_file(
    tmp_path: Path, tokenizer_class: str | None, model_type: str
) -> None:
    for name, file in FILES.items():
        tokenizer = load_tokenizer(folder(tmp_path, file, tokenizer_class, model_type))
        for text in TEXTS:
            ids = file.encode(text).ids
            assert (name, tokenizer.encode(text)) == (name, ids)
            assert tokenizer.decode(ids) == file.decode(ids, skip_special_tokens=False)
        assert len(tokenizer) == file.get_vocab_size()


def test_mode_hf_obeys_the_file_too(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(folder(tmp_path, FILES["digits"], "GPT2Tokenizer"), mode="hf")
    assert tokenizer.encode("in 2023") == FILES["digits"].encode("in 2023").ids


def test_class_that_comes_as_untrusted_code_goes_by_its_name(tmp_path: Path) -> None:
    auto_map = {"AutoTokenizer": [None, "mine.GPT2Tokenizer"]}
    folder(tmp_path, FILES["digits"], "GPT2Tokenizer", auto_map=auto_map)
    assert load_tokenizer(tmp_path).encode("in 2023") == FILES["digits"].encode("in 2023").ids


@pytest.mark.parametrize(
    ("tokenizer_class", "said", "num_bos", "num_eos"),
    [
        ("LlamaTokenizerFast", {"add_bos_token": True}, 1, 0),
        ("LlamaTokenizer", {"add_eos_token": True}, 1, 1),
        ("LLaMATokenizer", {"add_bos_token": True}, 1, 0),
        ("GemmaTokenizer", {"add_bos_token": False, "add_eos_token": True}, 0, 1),
        ("GPTNeoXTokenizer", {"add_bos_token": True}, 1, 0),
        ("GPTNeoXTokenizer", {"add_eos_token": False}, 0, 0),
        ("LlamaTokenizer", {"add_bos_token": None}, 0, 0),
        ("PreTrainedTokenizerFast", {"add_bos_token": True}, 0, 0),
        ("GPT2Tokenizer", {"add_bos_token": True}, 0, 0),
        ("Qwen2Tokenizer", {"add_eos_token": True}, 0, 0),
    ],
)
def test_bos_and_eos_go_by_the_config_for_classes_that_read_it(
    tmp_path: Path, tokenizer_class: str, said: dict[str, Any], num_bos: int, num_eos: int
) -> None:
    file = FILES["digits"]
    bos, eos = ([file.token_to_id(text)] for text in ("<s>", "</s>"))
    tokenizer = load_tokenizer(folder(tmp_path, file, tokenizer_class, **said))
    assert tokenizer.encode("in 2023") == bos * num_bos + file.encode("in 2023").ids + eos * num_eos


def test_config_takes_bos_of_the_file_away(tmp_path: Path) -> None:
    file = FILES["whitespace and BOS"]
    path = folder(tmp_path, file, "GPTNeoXTokenizer", add_bos_token=False, add_eos_token=False)
    ids = file.encode("in 2023", add_special_tokens=False).ids
    assert load_tokenizer(path).encode("in 2023") == ids


def test_what_the_class_and_the_config_say_is_kept(tmp_path: Path) -> None:
    folder(
        tmp_path,
        FILES["digits"],
        "Qwen2TokenizerFast",
        model_max_length=77,
        truncation_side="left",
        clean_up_tokenization_spaces=True,
        chat_template="{{ messages }}",
        additional_special_tokens=["<mark>"],
    )
    tokenizer = load_tokenizer(tmp_path)
    assert type(tokenizer).__name__ == "Qwen2Tokenizer"
    assert (tokenizer.model_max_length, tokenizer.truncation_side) == (77, "left")
    assert tokenizer.clean_up_tokenization_spaces
    assert tokenizer.chat_template == "{{ messages }}"
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    assert tokenizer.tokenize("a<mark>b") == ["a", "<mark>", "b"]
    assert tokenizer.model_input_names == ["input_ids", "attention_mask"]


def test_special_tokens_that_nobody_names_are_those_of_the_class(tmp_path: Path) -> None:
    FILES["digits"].save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|endoftext|>", "<|endoftext|>")
    assert tokenizer.encode("in 2023") == FILES["digits"].encode("in 2023").ids


@pytest.mark.parametrize(
    ("tokenizer_class", "bos"),
    [
        ("LLaMATokenizer", "<s>"),
        ("PreTrainedTokenizerFast", None),
        ("GPT2Tokenizer", "<|endoftext|>"),
    ],
)
@pytest.mark.parametrize("empty", ["", {"__type": "AddedToken", "content": ""}])
def test_empty_text_names_no_token(
    tmp_path: Path, tokenizer_class: str, bos: str | None, empty: Any
) -> None:
    file = FILES["digits"]
    none = {"bos_token": empty, "eos_token": empty, "unk_token": empty, "pad_token": empty}
    tokenizer = load_tokenizer(folder(tmp_path, file, tokenizer_class, **none))
    assert tokenizer.bos_token == bos
    assert tokenizer.convert_tokens_to_ids("nobody-knows-it") == tokenizer.unk_token_id
    assert tokenizer.encode("in 2023") == file.encode("in 2023").ids


def without_special_tokens() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.decoder = decoders.ByteLevel()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(show_progress=False, initial_alphabet=alphabet)
    made.train_from_iterator(SENTENCES, trainer)
    return made


@pytest.mark.parametrize("tokenizer_class", [*CLASSES, "T5Tokenizer", "XLNetTokenizer"])
def test_tokens_that_only_the_class_names_are_no_tokens(
    tmp_path: Path, tokenizer_class: str | None
) -> None:
    """The model has no row for an id behind the vocabulary, and users may write any text."""
    file = without_special_tokens()
    file.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": tokenizer_class})
    )
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    tokenizer = load_tokenizer(tmp_path)
    text = "x <unk> y<mask><CLS><pad></s><|endoftext|><FILL_ME><extra_id_0>"
    assert tokenizer.encode(text) == file.encode(text).ids
    assert len(tokenizer) == file.get_vocab_size()
    assert (tokenizer.unk_token, tokenizer.eos_token, tokenizer.unk_token_id) == (None, None, None)


def test_tokens_of_the_class_are_found_in_a_unigram_vocabulary(tmp_path: Path) -> None:
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("▁a", -1.0), ("a", -2.0)]
    file = Tokenizer(models.Unigram(pieces, unk_id=0))
    file.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.unk_token, tokenizer.bos_token, tokenizer.eos_token) == (
        *("<unk>", None, "</s>"),
    )
    assert len(tokenizer) == len(pieces)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
def test_tokens_that_the_folder_names_are_added(tmp_path: Path, name: str) -> None:
    file = without_special_tokens()
    file.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    (tmp_path / name).write_text('{"unk_token": "<unk>"}')
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode("<unk>") == [file.get_vocab_size()]
    assert tokenizer.bos_token is None


@pytest.mark.parametrize("tokenizer_class", ["PreTrainedTokenizerFast", "InternLM2Tokenizer"])
@pytest.mark.parametrize("key", ["additional_special_tokens", "extra_special_tokens"])
@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
def test_listed_tokens_may_be_objects(
    tmp_path: Path, name: str, key: str, tokenizer_class: str
) -> None:
    file = without_special_tokens()
    file.save(str(tmp_path / "tokenizer.json"))
    hf_config = {
        "tokenizer_class": tokenizer_class,
        "auto_map": {"AutoTokenizer": ["code.InternLM2Tokenizer", None]},
    }
    (tmp_path / "config.json").write_text(json.dumps(hf_config))
    options = {"lstrip": False, "rstrip": True, "normalized": False, "single_word": False}
    listed = [{"content": "<mark>", **options}, "<other>"]
    (tmp_path / name).write_text(json.dumps({key: listed}))
    tokenizer = load_tokenizer(tmp_path)
    size = file.get_vocab_size()
    assert tokenizer.encode("<mark>  <other>in") == [size, size + 1, *file.encode("in").ids]
    assert tokenizer.extra_special_tokens == ["<mark>", "<other>"]
    tokenizer.save_pretrained(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").encode("<mark>  in") == tokenizer.encode("<mark>in")


@pytest.mark.parametrize("given", ["<mark>", {"content": "<mark>", "rstrip": True}])
@pytest.mark.parametrize("image", ["<image>", {"content": "<image>", "rstrip": True}])
def test_listed_tokens_may_stand_beside_named_ones(tmp_path: Path, given: Any, image: Any) -> None:
    file = without_special_tokens()
    file.save(str(tmp_path / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "additional_special_tokens": [given],
        "extra_special_tokens": {"image_token": image},
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.image_token == "<image>"
    assert {"<mark>", "<image>"} <= set(tokenizer.all_special_tokens)
    for text, token in (("<image>", image), ("<mark>", given)):
        rest = "in" if isinstance(token, dict) else " in"
        marked = [tokenizer.convert_tokens_to_ids(text), *file.encode(rest).ids]
        assert tokenizer.encode(f"{text} in") == marked


def test_tokens_of_the_class_stay_away_when_it_is_saved(tmp_path: Path) -> None:
    file = without_special_tokens()
    config = {"tokenizer_class": "LlamaTokenizer", "extra_special_tokens": ["<mark>"]}
    file.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(tmp_path)
    tokenizer.save_pretrained(tmp_path / "saved")
    others = (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer)))
    for other in (tokenizer, *others, load_tokenizer(tmp_path / "saved")):
        assert other.encode("<unk><mark>") == [*file.encode("<unk>").ids, file.get_vocab_size()]
        assert other.extra_special_tokens == ["<mark>"]


def test_bos_that_nobody_has_is_not_added(tmp_path: Path) -> None:
    file = without_special_tokens()
    file.save(str(tmp_path / "tokenizer.json"))
    config = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "eos_token": "<end>"}))
    end = file.get_vocab_size()
    assert load_tokenizer(tmp_path).encode("in") == [*file.encode("in").ids, end]


def test_tokenizer_can_be_copied_pickled_and_saved(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    tokenizer = load_tokenizer(folder(tmp_path, FILES["whitespace and BOS"], "GPT2Tokenizer"))
    tokenizer.save_pretrained(tmp_path / "saved")
    others = (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer)))
    for other in (*others, load_tokenizer(tmp_path / "saved")):
        assert type(other) is type(tokenizer)
        assert other.encode("in 2023") == tokenizer.encode("in 2023")
