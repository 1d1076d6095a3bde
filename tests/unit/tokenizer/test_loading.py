"""A tokenizer folder loads, or the error names the file and the remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quire.errors import ModelLoadError
from quire.tokenizer.loading import load_tokenizer
from tests.fakes import tokenizers
from tests.unit.tokenizer.vocabularies import sentencepiece_model, write_tiktoken


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokenizers.byte_level().save_pretrained(tmp_path)
    return tmp_path


def test_loaded_tokenizer_encodes_decodes_and_has_its_template(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    original = tokenizers.byte_level()
    assert tokenizer.encode("hello 你好") == original.encode("hello 你好")
    assert tokenizer.decode(tokenizer.encode("hello 你好")) == "hello 你好"
    assert tokenizer.chat_template == original.chat_template
    assert tokenizer.eos_token == "<|im_end|>"


def test_unknown_model_type_does_not_matter(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "nobody-knows-it"}))
    assert load_tokenizer(folder).encode("hello") == tokenizers.byte_level().encode("hello")


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"nowhere does not exist"):
        load_tokenizer(tmp_path / "nowhere")


def test_folder_without_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ModelLoadError, match=r"has no tokenizer.*skip_tokenizer_init"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "tokenizer_class",
    [
        *("LlamaTokenizer", "LlamaTokenizerFast", "LLaMATokenizer", "Qwen2Tokenizer"),
        *("GPT2Tokenizer", "GemmaTokenizer", "T5Tokenizer", "PreTrainedTokenizerFast"),
    ],
)
def test_class_alone_is_no_tokenizer(tmp_path: Path, tokenizer_class: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": tokenizer_class, "bos_token": "<s>", "eos_token": "</s>"})
    )
    with pytest.raises(ModelLoadError, match=r"has no tokenizer: none of .*skip_tokenizer_init"):
        load_tokenizer(tmp_path)


def test_class_that_goes_by_bytes_needs_no_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    assert load_tokenizer(tmp_path).encode("a") == [ord("a") + 3, 1]


def test_broken_file_is_named(folder: Path) -> None:
    file = folder / "tokenizer.json"
    file.write_text(file.read_text()[:1000])
    with pytest.raises(ModelLoadError, match=r"tokenizer\.json is not valid JSON"):
        load_tokenizer(folder)


def test_code_of_a_checkpoint_needs_trust(tmp_path: Path) -> None:
    config = {
        "tokenizer_class": "MyTokenizer",
        "auto_map": {"AutoTokenizer": ["my.MyTokenizer", None]},
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "my.py").write_text("raise RuntimeError('must not run')")
    with pytest.raises(ModelLoadError, match=r"trust_remote_code=True"):
        load_tokenizer(tmp_path)


def test_mode_is_checked(folder: Path) -> None:
    with pytest.raises(ValueError, match="tokenizer_mode must be one of"):
        load_tokenizer(folder, mode="quick")
    assert load_tokenizer(folder, mode="fast").is_fast


def test_class_of_unknown_files_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "LlamaTokenizer"})
    )
    (tmp_path / "tokenizer.model").write_bytes(b"no model")
    with pytest.raises(ModelLoadError, match=r"cannot be loaded: .*; download its files again"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("module", ["sentencepiece", "google.protobuf"])
def test_only_packages_that_are_missing_are_advised(
    folder: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    def find(name: str) -> object:
        if name == module == "google.protobuf":
            raise ModuleNotFoundError
        return None if name == module else object()

    monkeypatch.setattr("quire.tokenizer.loading.find_spec", find)
    package = module.removeprefix("google.")
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "eos_token": {"content": "x"}}))
    with pytest.raises(ModelLoadError, match=r"eos_token has to be .*; download its files again"):
        load_tokenizer(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"no model")
    with pytest.raises(ModelLoadError, match=rf"\({package}\): pip install 'quire\[tokenizers\]'"):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    ("problem", "remedy"),
    [
        ("this needs `pip install mistral-common`", "install that, or pass tokenizer= "),
        ("cannot import name 'f'", "download its files again, or pass tokenizer= "),
    ],
)
def test_a_package_that_the_error_names_is_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: str, remedy: str
) -> None:
    def load(*_: object, **__: object) -> None:
        raise ImportError(problem)

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", load)
    monkeypatch.setattr("quire.tokenizer.loading.find_spec", lambda _: object())
    (tmp_path / "tekken.json").write_text("{}")
    with pytest.raises(ModelLoadError, match=f"{problem}; {remedy}"):
        load_tokenizer(tmp_path)


CODE = """
from transformers import PreTrainedTokenizerFast

class MyTokenizer(PreTrainedTokenizerFast):
    is_mine = True
"""


def test_trusted_code_of_a_checkpoint_runs(folder: Path) -> None:
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    auto_map = {"AutoTokenizer": [None, "mine.MyTokenizer"]}
    file.write_text(json.dumps({**config, "tokenizer_class": "MyTokenizer", "auto_map": auto_map}))
    (folder / "mine.py").write_text(CODE)
    tokenizer = load_tokenizer(folder, trust_remote_code=True)
    assert tokenizer.is_mine
    assert tokenizer.encode("hello") == tokenizers.byte_level().encode("hello")
    with pytest.raises(ModelLoadError, match=r"trust_remote_code=True"):
        load_tokenizer(folder)


BYTES_CODE = """
from transformers import PreTrainedTokenizerFast
from tokenizers import Tokenizer, models

class MyTokenizer(PreTrainedTokenizerFast):
    def __init__(self, **options):
        super().__init__(tokenizer_object=Tokenizer(models.BPE({"a": 0}, [])), **options)
"""


def test_trusted_code_may_bring_its_vocabulary(tmp_path: Path) -> None:
    auto_map = {"AutoTokenizer": [None, "mine.MyTokenizer"]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": auto_map}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "mine.py").write_text(BYTES_CODE)
    assert load_tokenizer(tmp_path, trust_remote_code=True).encode("a") == [0]


def test_code_named_by_the_config_of_the_model_needs_trust(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Other"}))
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "x", "auto_map": {"AutoTokenizer": ["my.Other", None]}})
    )
    with pytest.raises(ModelLoadError, match=r"trust_remote_code=True"):
        load_tokenizer(tmp_path)


def test_slow_is_said_to_be_the_fast_one(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load_tokenizer(folder, mode="slow").is_fast
    assert "the fast one is used" in caplog.text


@pytest.mark.parametrize(
    ("config", "hf_config", "named"),
    [
        ({"tokenizer_class": "NobodysTokenizer"}, {}, "tokenizer_class, 'NobodysTokenizer'"),
        ({}, {"tokenizer_class": "TokenizersBackend"}, "tokenizer_class, 'TokenizersBackend'"),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, {"model_type": "llama"}, "'PreTrained"),
        ({}, {"model_type": "nobody-knows-it"}, "model_type, 'nobody-knows-it'"),
    ],
)
def test_sentencepiece_vocabulary_of_nobody_we_know_is_refused(
    tmp_path: Path, config: dict[str, str], hf_config: dict[str, str], named: str
) -> None:
    """`transformers` would read the pieces, and begin prompts without BOS and space."""
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model(model_type="bpe"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text(json.dumps(hf_config))
    with pytest.raises(ModelLoadError, match=rf'{named}.* "tokenizer_class": "LlamaTokenizer"'):
        load_tokenizer(tmp_path)
    assert load_tokenizer(tmp_path, mode="hf").encode("hello")


def test_sentencepiece_vocabulary_with_code_needs_trust(tmp_path: Path) -> None:
    auto_map = {"AutoTokenizer": ["mine.NobodysTokenizer", None]}
    config = {"tokenizer_class": "NobodysTokenizer", "auto_map": auto_map}
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model(model_type="bpe"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ModelLoadError, match=r"trust_remote_code=True"):
        load_tokenizer(tmp_path)


def test_tiktoken_vocabulary_under_that_name_is_left_to_transformers(tmp_path: Path) -> None:
    ranks = {bytes([byte]): byte for byte in range(256)}
    write_tiktoken(tmp_path / "tokenizer.model", ranks)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "NobodysTokenizer"}')
    assert load_tokenizer(tmp_path).encode("ab") == [ord("a"), ord("b")]


def test_kinds_not_read_here_name_the_other_way(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "LlamaTokenizer"})
    )
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model(model_type="char"))
    with pytest.raises(ModelLoadError, match=r"neither unigram nor BPE; tokenizer_mode='hf'"):
        load_tokenizer(tmp_path)
