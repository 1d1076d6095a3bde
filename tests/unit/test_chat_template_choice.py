"""A chat template is found under the name that a user gives."""

from __future__ import annotations

import json
import shutil
from codecs import BOM_UTF8
from functools import partial
from pathlib import Path

import pytest

from quire import LLM
from quire.args import BUNDLED_MODEL, EngineArgs
from quire.chat_template import ChatOptions, ChatRenderer
from quire.chat_template_choice import check_name, load_chat_template
from quire.cli.engine_flags import served_config
from quire.model_files import own_chat_template
from tests.fakes import tokenizers

HELLO = [{"role": "user", "content": "Hello"}]


def render(template: str | None) -> str | None:
    options = ChatOptions(template=template)
    return ChatRenderer(tokenizers.byte_level()).render(HELLO, options).text


def test_a_template_of_the_model_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tokenizers.byte_level()
    own = {"default": "D{{ messages[0].content }}", "rag": "R{{ documents[0].title }}"}
    own["chatml"] = "OWN"
    monkeypatch.setattr(tokenizer, "chat_template", own)
    given = ChatOptions(template=load_chat_template("rag"), documents=[{"title": "Rain"}])
    assert ChatRenderer(tokenizer).render(HELLO, given).text == "RRain"
    always = ChatRenderer(tokenizer, load_chat_template("rag"))
    assert always.render(HELLO, ChatOptions(documents=[{"title": "Sun"}])).text == "RSun"
    assert render(load_chat_template("chatml")) == "OWN"
    unknown = r"no chat template 'rags'; did you mean rag\?.* names default, rag, .*, vicuna"
    with pytest.raises(ValueError, match=unknown):
        ChatRenderer(tokenizer, load_chat_template("rags")).render(HELLO)
    monkeypatch.setattr(tokenizer, "chat_template", own["default"])
    assert (render(load_chat_template("chatml")) or "").startswith("<|im_start|>user\nHello")
    with pytest.raises(ValueError, match=r"no chat template 'rag'; .* names alpaca, "):
        render(load_chat_template("rag"))


def test_template_is_a_file_or_one_line(tmp_path: Path) -> None:
    file = tmp_path / "chat.jinja"
    file.write_text("{{ messages }}\n")
    assert load_chat_template(file) == load_chat_template(str(file)) == "{{ messages }}\n"
    file.write_bytes(BOM_UTF8 + b"{{ messages }}\n")
    assert load_chat_template(file) == "{{ messages }}\n"
    assert load_chat_template(r"{{ a }}\n你") == "{{ a }}\n你"
    assert load_chat_template(None) is None
    for literal in (r"{{ '\\nabla' }}", "{{ a }}\n\\text"):
        assert load_chat_template(literal, is_typed=False) == literal
    assert load_chat_template("{{ a }}\n\\text") == "{{ a }}\n\\text"
    with pytest.raises(ValueError, match="neither a readable file"):
        load_chat_template(str(tmp_path / "none.jinja"))


def test_a_template_that_does_not_parse_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "chat.jinja"
    file.write_text("{% for m in messages %}\n{{ m.content }}\n")
    with pytest.raises(
        ValueError, match=r"chat\.jinja' does not parse: line 2: .*'endfor'.*correct it"
    ):
        load_chat_template(file)
    with pytest.raises(ValueError, match="line 1: No filter named 'shout'"):
        load_chat_template("{{ messages | shout }}")
    file.write_bytes(b"{{ '\xff' }}")
    with pytest.raises(ValueError, match="is not UTF-8"):
        load_chat_template(file)
    with pytest.raises(ValueError, match=r"a+\.\.\. does not parse") as refused:
        load_chat_template("{{" + "a" * 10_000)
    assert len(str(refused.value)) < 600
    for good in (
        "{%- generation -%}{{ messages | tojson }}{%- endgeneration -%}",
        "{{ strftime_now('%d') }}{{ raise_exception('no') }}",
        "{% for m in messages %}{% if m %}{% break %}{% endif %}{% endfor %}",
    ):
        assert load_chat_template(good) == good


@pytest.mark.parametrize("name", ["chat", "instruct", "llama", "qwen2", "tools.v2", "rag_1"])
def test_a_name_of_the_models_may_be_like_one_of_ours(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    template = load_chat_template(name)
    with pytest.raises(ValueError, match=f"there is no chat template '{name}'"):
        render(template)
    monkeypatch.setattr(tokenizers.byte_level(), "chat_template", {"default": "D", name: "OWN"})
    assert render(template) == "OWN"


@pytest.mark.parametrize("name", ["none.jinja", "my.j2", "chat.txt", "./rag", "a/rag", ".rag"])
def test_what_is_no_name_must_be_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"is neither a readable file .*No such file"):
        load_chat_template(name)


def test_an_unknown_name_is_found_without_the_weights(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(BUNDLED_MODEL, folder)
    file = folder / "tokenizer_config.json"
    named = [{"name": "default", "template": "D"}, {"name": "rag", "template": "R"}]
    settings = json.loads(file.read_text()) | {"chat_template": named}
    file.write_text(json.dumps(settings))
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    named_by_model = partial(own_chat_template, EngineArgs(model=str(folder)))
    check_name("rag", named_by_model)
    with pytest.raises(ValueError, match=r"no chat template 'rags'; did you mean rag\?"):
        check_name("rags", named_by_model)
    make_config = served_config(EngineArgs(model=str(folder)), "rags")
    with pytest.raises(ValueError, match=r"^--chat-template: there is no chat template 'rags'"):
        make_config()


def test_a_template_is_read_once_however_often_the_engine_starts(tmp_path: Path) -> None:
    file = tmp_path / "chat.jinja"
    file.write_text("{{ messages }}")
    make_config = served_config(EngineArgs(), str(file))
    file.unlink()
    assert make_config().model.model


def test_the_model_is_not_looked_at_for_what_is_known() -> None:
    for known in (None, "chatml", "{{ messages }}"):
        check_name(known, lambda: pytest.fail("the tokenizer was loaded"))


def test_an_llm_of_an_unknown_template_is_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    built = "quire.llm.LLMEngine.from_engine_args"
    monkeypatch.setattr(built, lambda *args, **options: pytest.fail("the engine was built"))
    with pytest.raises(ValueError, match=r"no chat template 'vicunna'; did you mean vicuna\?"):
        LLM(chat_template="vicunna")
