"""Triton's kernels are kept where its cache may be written, else in a folder of this user."""

from __future__ import annotations

from pathlib import Path

import pytest
from triton import knobs

from quire.kernels import kept_folders
from quire.kernels.triton import kernel_cache


@pytest.fixture
def fallback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "quire" / "triton"


@pytest.mark.usefixtures("fallback")
def test_a_folder_that_can_be_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(knobs.cache, "dir", str(tmp_path / "new" / "folder"))
    kernel_cache.choose_folder()
    assert knobs.cache.dir == str(tmp_path / "new" / "folder")
    assert not caplog.records


@pytest.mark.usefixtures("fallback")
def test_one_that_has_kernels_stays_even_if_it_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kernel").touch()
    monkeypatch.setattr(knobs.cache, "dir", str(tmp_path))
    monkeypatch.setattr(kept_folders.os, "access", lambda *_: False)
    kernel_cache.choose_folder()
    assert knobs.cache.dir == str(tmp_path)


def test_one_that_cannot_is_replaced_with_a_warning(
    fallback: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").touch()
    named = tmp_path / "file" / "cache"
    monkeypatch.setattr(knobs.cache, "dir", str(named))
    kernel_cache.choose_folder()
    assert knobs.cache.dir == str(fallback) and fallback.parent.is_dir()
    assert f"cannot be kept in {named} (Not a directory); they are kept in" in caplog.text
    assert "TRITON_CACHE_DIR" in caplog.text
