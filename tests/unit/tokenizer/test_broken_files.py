"""Files that cannot be what their names say are named when a tokenizer cannot be loaded."""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from pathlib import Path

import pytest

from quire.errors import ModelLoadError
from quire.tokenizer.broken_files import broken_file
from quire.tokenizer.loading import load_tokenizer
from tests.fakes import tokenizers

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokenizers.byte_level().save_pretrained(tmp_path)
    return tmp_path


def test_whole_files_are_not_broken(folder: Path) -> None:
    assert broken_file(folder) is None


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("tokenizer.json", POINTER, "is a Git LFS pointer.*git lfs pull"),
        ("tokenizer.json", b"{", "is not valid JSON"),
        ("tokenizer_config.json", b"\xff{}", "is not valid JSON"),
        ("added_tokens.json", b"[]", "holds no JSON object"),
        ("tokenizer_config.json", BOM_UTF8 + b"{}", "begins with a byte order mark.*without"),
        ("tokenizer.json", BOM_UTF8 + b"{", "is not valid JSON"),
        ("chat_template.jinja", b"caf\xe9 {{ messages }}", "is not UTF-8 text .*position 3"),
    ],
)
def test_broken_file_is_named_with_the_remedy(
    folder: Path, name: str, content: bytes, problem: str
) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(ModelLoadError, match=f"^{re.escape(str(folder / name))} {problem}"):
        load_tokenizer(folder)


def test_a_byte_order_mark_is_skipped_where_quire_reads_the_file(folder: Path) -> None:
    (folder / "config.json").write_bytes(BOM_UTF8 + b'{"model_type": "llama"}')
    (folder / "chat_template.jinja").write_bytes(BOM_UTF8 + b"{{ messages }}")
    others = folder / "additional_chat_templates"
    others.mkdir()
    (others / "rag.jinja").write_bytes(BOM_UTF8 + b"{{ documents }}")
    templates = {"default": "{{ messages }}", "rag": "{{ documents }}"}
    assert load_tokenizer(folder).chat_template == templates


@pytest.mark.parametrize(
    ("content", "problem"), [(POINTER, "is a Git LFS pointer.*git lfs pull"), (b"", "is empty")]
)
@pytest.mark.parametrize("name", ["tokenizer.model", "qwen.tiktoken"])
def test_broken_vocabulary_is_named(folder: Path, name: str, content: bytes, problem: str) -> None:
    (folder / name).write_bytes(content)
    assert broken_file(folder) is None, "nobody reads it beside a tokenizer.json"
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelLoadError, match=f"^{re.escape(str(folder / name))} {problem}"):
        load_tokenizer(folder)
