"""The folders of ModelScope's earlier clients: one for each model, whatever the revision."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from quire.errors import ModelLoadError
from quire.weights.hub import resolve_model
from quire.weights.hub_flat import change_revision, read_revision
from tests.fakes.hub import FILES, NAME, FakeHub

LAYOUTS = (
    *("models/owner/tiny-1___0", "hub/models/owner/tiny-1___0", "owner/tiny-1.0"),
    *("owner/tiny-1___0", "hub/owner/tiny-1.0", "hub/owner/tiny-1___0", "models/owner/tiny-1.0"),
)


@pytest.fixture(params=LAYOUTS)
def flat(
    request: pytest.FixtureRequest,
    hub: FakeHub,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Path:
    """A whole copy of the model on the hub, which has a revision v1 too."""
    monkeypatch.setenv("QUIRE_USE_MODELSCOPE", "1")
    hub.repositories[NAME].revisions = ("master", "v1")
    folder = tmp_path / "modelscope" / str(request.param)
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_bytes(FILES[name])
    return folder


def says(folder: Path, revision: str) -> None:
    (folder / ".mv").write_text(f"Revision:{revision},CreatedAt:1700000000")


def test_copy_is_used_where_no_revision_is_asked_for(
    flat: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    says(flat, "v1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve_model(NAME) == flat
    assert resolve_model(NAME, revision="v1") == flat
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_revision_that_the_hub_denies_is_an_error(flat: Path) -> None:
    for _ in range(2):
        with pytest.raises(ModelLoadError, match=r"revision 'v9' is neither .*; check the name"):
            resolve_model(NAME, revision="v9")
        says(flat, "master")


def test_model_that_the_hub_no_longer_has_is_used_from_its_copy(
    flat: Path, hub: FakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    del hub.repositories[NAME]
    assert resolve_model(NAME) == flat
    says(flat, "v1")
    assert resolve_model(NAME, revision="v1") == flat
    assert "; using the copy in" in caplog.text


def test_copy_that_says_another_revision_is_none_of_this_one(
    flat: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(flat, "master")
    match = rf" is set, and {flat} holds revision 'master' of {NAME}, not 'v1'; go online"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelLoadError, match=match):
        resolve_model(NAME, revision="v1")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    hub.status = 403
    with pytest.raises(ModelLoadError, match=r"refuses access .* holds revision 'master' of"):
        resolve_model(NAME, revision="v1")


def test_copy_that_says_no_revision_is_used_with_a_warning(
    flat: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve_model(NAME, revision="v1") == flat
    assert f"{flat} does not say which revision of {NAME} it holds" in caplog.text
    assert "it may not be 'v1'" in caplog.text


def test_download_of_a_revision_leaves_the_copy_of_another_one(
    flat: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(flat, "master")
    hub.repositories[NAME].files["model.safetensors"] = b"t" * 1000
    folder = resolve_model(NAME, revision="v1")
    assert (folder / "model.safetensors").read_bytes() == b"t" * 1000
    assert (flat / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve_model(NAME, revision="v1") == folder
    assert resolve_model(NAME, revision="master") == resolve_model(NAME) == flat


def test_copy_that_is_updated_in_place_says_its_new_revision(
    flat: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(flat, "v1")
    hub.repositories[NAME].files["model.safetensors"] = b"t" * 1000
    assert resolve_model(NAME) == flat
    assert (flat / "model.safetensors").read_bytes() == b"t" * 1000
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve_model(NAME, revision="master") == flat
    with pytest.raises(ModelLoadError, match=r"holds revision 'master' of .*, not 'v1'"):
        resolve_model(NAME, revision="v1")


@pytest.mark.parametrize("text", ["", "Revision:", "what", "\xff"])
def test_file_that_names_no_revision_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    (tmp_path / ".mv").write_text(text, encoding="latin-1")
    assert read_revision(tmp_path) is None
    change_revision(tmp_path, "v1")
    assert (tmp_path / ".mv").read_text(encoding="latin-1") == text
