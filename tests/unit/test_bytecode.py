"""The note for users whose Python may not keep bytecode."""

from __future__ import annotations

import importlib
import logging
import py_compile
import sys
from pathlib import Path

import pytest

from quire.bytecode import tell_if_not_kept


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a package ``compiled_anew``, which has no bytecode."""
    file = tmp_path / "compiled_anew" / "__init__.py"
    file.parent.mkdir()
    file.write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    importlib.invalidate_caches()
    return file


def test_a_package_without_bytecode_is_told_with_the_remedy(
    package: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="quire.bytecode"):
        tell_if_not_kept("compiled_anew")
    (message,) = caplog.messages
    assert "PYTHONDONTWRITEBYTECODE or -B forbids it" in message
    assert f"python -m compileall -q {package.parent.parent}" in message


def test_a_package_with_bytecode_is_not_told(
    package: Path, caplog: pytest.LogCaptureFixture
) -> None:
    py_compile.compile(str(package))
    with caplog.at_level(logging.INFO, logger="quire.bytecode"):
        tell_if_not_kept("compiled_anew")
    assert caplog.messages == []
