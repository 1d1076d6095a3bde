"""Installed packages add to Quire by a function that an entry point names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from quire.errors import PluginError
from quire.plugins import load_plugins

_CODE = """
from quire import ModelRegistry

def register():
    ModelRegistry.register_model("PluggedForCausalLM", "quire.models.architectures.llama:llama")

def fail():
    raise RuntimeError("out of order")
"""


def _install(folder: Path, function: str) -> None:
    """A package as an installer leaves it."""
    info = folder / "scholar-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "scholar_plugin.py").write_text(_CODE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: scholar\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[quire.plugins]\nmine = scholar_plugin:{function}\n")


def test_a_plug_in_is_called_in_any_process_that_looks_models_up(tmp_path: Path) -> None:
    _install(tmp_path, "register")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from quire.cli import main\n"
        "sys.exit(main(['models', '--json']))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "PluggedForCausalLM" in result.stdout


@pytest.mark.parametrize(
    ("function", "reason"),
    [("fail", "RuntimeError: out of order"), ("nothing", "AttributeError: ")],
)
def test_a_plug_in_that_fails_is_named(
    function: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(tmp_path, function)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "scholar_plugin", raising=False)
    load_plugins.cache_clear()
    with pytest.raises(PluginError, match=rf"'mine' .*of scholar\) failed with {reason}"):
        load_plugins()
    load_plugins.cache_clear()
