"""Snapshot folders whose repository has changed: what is kept, removed and told apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quire.errors import ModelLoadError
from quire.weights.hub import resolve_model
from quire.weights.hub_note import remove_files
from tests.fakes.hub import NAME, FakeHub, file_names


def test_failed_modelscope_update_takes_no_weights_away(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUIRE_USE_MODELSCOPE", "1")
    folder = resolve_model(NAME)
    files = hub.repositories[NAME].files
    files["new.safetensors"] = files.pop("model.safetensors")
    hub.failing["new.safetensors"] = 403
    with pytest.raises(ModelLoadError, match="HTTP 403"):
        resolve_model(NAME)
    assert "model.safetensors" in file_names(folder)
    hub.failing.clear()
    names = file_names(resolve_model(NAME))
    assert "new.safetensors" in names
    assert "model.safetensors" not in names


@pytest.mark.parametrize("what", ["config", "tokenizer"])
def test_config_alone_takes_no_weights_away(
    any_hub: FakeHub, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    older = resolve_model(NAME)
    files = any_hub.repositories[NAME].files
    files["new.safetensors"] = files.pop("model.safetensors")
    resolve_model(NAME, what=what)
    with monkeypatch.context() as offline:
        offline.setenv("HF_HUB_OFFLINE", "1")
        assert resolve_model(NAME) == older
        assert resolve_model(NAME, what=what).is_dir()
    assert "model.safetensors" not in file_names(resolve_model(NAME))


def test_new_config_and_old_weights_of_equal_size_do_not_pass_for_a_model(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUIRE_USE_MODELSCOPE", "1")
    resolve_model(NAME)
    files = hub.repositories[NAME].files
    files["config.json"] = b'{"model_type": "other"}'
    files["model.safetensors"] = b"t" * 1000
    resolve_model(NAME, what="config")
    with monkeypatch.context() as offline:
        offline.setenv("HF_HUB_OFFLINE", "1")
        assert resolve_model(NAME, what="config").is_dir()
        with pytest.raises(ModelLoadError, match=r"only in part .*\(missing: model.safetensors\)"):
            resolve_model(NAME)
    folder = resolve_model(NAME)
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve_model(NAME) == folder


def test_removed_file_alone_is_not_used(any_hub: FakeHub) -> None:
    files = any_hub.repositories[NAME].files
    files["chat_template.jinja"] = b"old"
    assert "chat_template.jinja" in file_names(resolve_model(NAME))
    del files["chat_template.jinja"]
    assert "chat_template.jinja" not in file_names(resolve_model(NAME))


def test_removed_template_is_not_used_with_a_tokenizer_alone(any_hub: FakeHub) -> None:
    files = any_hub.repositories[NAME].files
    files["chat_template.jinja"] = b"old"
    resolve_model(NAME)
    del files["chat_template.jinja"]
    assert "chat_template.jinja" not in file_names(resolve_model(NAME, what="tokenizer"))


def test_listing_removes_nothing_outside_its_folder(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUIRE_USE_MODELSCOPE", "1")
    folder = resolve_model(NAME)
    outside = folder.parent / "mine.txt"
    outside.touch()
    note = json.loads((folder / ".quire.json").read_text())
    note["stale"] = ["../mine.txt", str(outside)]
    (folder / ".quire.json").write_text(json.dumps(note))
    resolve_model(NAME)
    assert outside.is_file()


def test_two_processes_remove_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def unlink_after_another(file: Path, missing_ok: bool = False) -> None:
        unlink(file)
        unlink(file, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink_after_another)
    (tmp_path / "old.safetensors").touch()
    remove_files(tmp_path, ["old.safetensors"])
    assert not list(tmp_path.iterdir())
