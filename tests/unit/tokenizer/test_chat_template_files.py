"""The chat templates of a folder are found, whoever reads its vocabulary."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from quire.errors import ModelLoadError
from quire.tokenizer.loading import load_tokenizer
from tests.fakes import tokenizers
from tests.unit.tokenizer.vocabularies import sentencepiece_model


@pytest.fixture(params=["tokenizer.json", "a class's tokenizer.json", "sentencepiece"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A tokenizer without a template."""
    if request.param == "sentencepiece":
        (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model())
        config = {"tokenizer_class": "YiTokenizer"}
    else:
        tokenizers.byte_level().save_pretrained(tmp_path)
        (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
        is_plain = request.param == "tokenizer.json"
        config = {"tokenizer_class": "PreTrainedTokenizerFast" if is_plain else "GPT2Tokenizer"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path


def say_in_config(folder: Path, chat_template: Any) -> None:
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text()) | {"chat_template": chat_template}
    file.write_text(json.dumps(config))


def test_a_template_or_several_come_from_the_config_or_a_file(folder: Path) -> None:
    assert load_tokenizer(folder).chat_template is None
    say_in_config(folder, "{{ messages }}")
    assert load_tokenizer(folder).chat_template == "{{ messages }}"
    several = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    say_in_config(folder, several)
    assert load_tokenizer(folder).chat_template == {"default": "a", "tool_use": "b"}
    (folder / "chat_template.jinja").write_text("{{ file }}")
    assert load_tokenizer(folder).chat_template == "{{ file }}"


def test_templates_in_a_folder_of_their_own_stand_beside_the_main_one(folder: Path) -> None:
    others = folder / "additional_chat_templates"
    others.mkdir()
    (others / "tool_use.jinja").write_text("for tools")
    (others / "notes.txt").write_text("no template")
    assert load_tokenizer(folder).chat_template == {"tool_use": "for tools"}
    say_in_config(folder, "of the config")
    expected = {"default": "of the config", "tool_use": "for tools"}
    assert load_tokenizer(folder).chat_template == expected
    (folder / "chat_template.jinja").write_text("of the file")
    assert load_tokenizer(folder).chat_template == expected | {"default": "of the file"}


def test_the_older_file_is_read_where_nothing_else_has_a_template(folder: Path) -> None:
    (folder / "chat_template.json").write_text('{"chat_template": "of the older file"}')
    assert load_tokenizer(folder).chat_template == "of the older file"
    say_in_config(folder, "of the config")
    assert load_tokenizer(folder).chat_template == "of the config"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is not valid JSON"),
        ('"{{ messages }}"', 'holds no JSON object with the key "chat_template"'),
    ],
)
def test_the_older_file_is_named_where_it_is_broken(folder: Path, text: str, problem: str) -> None:
    (folder / "chat_template.json").write_text(text)
    with pytest.raises(ModelLoadError, match=rf"chat_template\.json {problem}"):
        load_tokenizer(folder)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "chat_template.json"])
@pytest.mark.parametrize(
    "template", [5, ["a"], [{"name": "default"}], [{"name": "a", "template": 5}], {"default": None}]
)
def test_what_is_no_template_is_named_with_file_and_key(
    folder: Path, name: str, template: Any
) -> None:
    file = folder / name
    config = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**config, "chat_template": template}))
    message = f"{file} has chat_template = {template!r}, which must be a Jinja text, or a list of"
    with pytest.raises(ModelLoadError, match=f"^{re.escape(message)}"):
        load_tokenizer(folder)


def test_a_saved_tokenizer_keeps_its_templates(folder: Path, tmp_path: Path) -> None:
    say_in_config(folder, "of the config")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("of documents")
    load_tokenizer(folder).save_pretrained(tmp_path / "saved")
    expected = {"default": "of the config", "rag": "of documents"}
    assert load_tokenizer(tmp_path / "saved").chat_template == expected
