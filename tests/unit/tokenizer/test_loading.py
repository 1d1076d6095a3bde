"""A tokenizer folder loads, or the error names the file and the remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quire.errors import ModelLoadError
from quire.tokenizer.loading import load_tokenizer
from tests.fakes import tokenizers


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
    with pytest.raises(ModelLoadError, match=r"cannot be loaded: .*quire\[tokenizers\]"):
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


def test_kinds_not_read_here_name_the_other_way(tmp_path: Path) -> None:
    from tests.unit.tokenizer.vocabularies import sentencepiece_model

    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "LlamaTokenizer"})
    )
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model(model_type="char"))
    with pytest.raises(ModelLoadError, match=r"neither unigram nor BPE; tokenizer_mode='hf'"):
        load_tokenizer(tmp_path)
