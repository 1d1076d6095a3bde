"""Installed packages add to Quire by a function that an entry point names."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from quire.as_vllm import install
from quire.compat import BATCH_PROCESSORS, PLUGIN
from quire.errors import PluginError
from quire.plugins import load_plugins

_CODE = """
from quire import ModelRegistry

def register():
    ModelRegistry.register_model("PluggedForCausalLM", "quire.models.architectures.llama:llama")

def fail():
    raise RuntimeError("out of order")

def say():
    print("called")
"""


def _install(folder: Path, *entry_points: str, name: str = "scholar") -> None:
    """A package as an installer leaves it; entry points are "group function"."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / f"{name}_plugin.py").write_text(_CODE)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = []
    for one in entry_points:
        group, function = one.split()
        lines.append(f"[{group}]\nmine = {name}_plugin:{function}\n")
    (info / "entry_points.txt").write_text("".join(lines))


def test_a_plug_in_is_called_in_any_process_that_looks_models_up(tmp_path: Path) -> None:
    _install(tmp_path, "quire.plugins register")
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
    _install(tmp_path, f"quire.plugins {function}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "scholar_plugin", raising=False)
    load_plugins.cache_clear()
    with pytest.raises(PluginError, match=rf"'mine' .*of scholar\) failed with {reason}"):
        load_plugins()
    load_plugins.cache_clear()


@pytest.fixture
def as_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for packages, in a process where `import vllm` is Quire."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.delitem(sys.modules, "scholar_plugin", raising=False)
    install()
    load_plugins.cache_clear()
    yield tmp_path
    load_plugins.cache_clear()


_THEIRS = "vllm.general_plugins"


@pytest.mark.parametrize(
    ("chosen", "output"),
    [(None, "called\n"), ("other, mine", "called\n"), ("other", ""), ("", "")],
)
def test_plug_ins_of_vllm_are_called_where_it_is_quire(
    chosen: str | None,
    output: str,
    as_vllm: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _install(as_vllm, f"{_THEIRS} say")
    if chosen is not None:
        monkeypatch.setenv("VLLM_PLUGINS", chosen)
    for _ in range(2):
        load_plugins()
    assert capsys.readouterr().out == output


def test_plug_ins_of_vllm_are_not_called_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _install(tmp_path, f"{_THEIRS} say", "vllm.platform_plugins say")
    monkeypatch.syspath_prepend(str(tmp_path))
    load_plugins.cache_clear()
    load_plugins()
    load_plugins.cache_clear()
    assert capsys.readouterr() == ("", "")


def test_a_plug_in_of_vllm_that_fails_is_logged(
    as_vllm: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _install(as_vllm, f"{_THEIRS} fail")
    load_plugins()
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage() == (
        "the plug-in 'mine' (scholar_plugin:fail, of scholar) failed with RuntimeError: out of "
        "order; repair or uninstall scholar, or leave it out of VLLM_PLUGINS"
    )


def test_plug_ins_of_vllms_other_groups_are_named(
    as_vllm: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    _install(as_vllm, "vllm.platform_plugins say", "vllm.logits_processors say")
    load_plugins()
    assert [record.getMessage() for record in caplog.records] == [
        f"vllm.logits_processors 'mine' of scholar has no effect: {BATCH_PROCESSORS}",
        f"vllm.platform_plugins 'mine' of scholar has no effect: {PLUGIN}",
    ]
    assert capsys.readouterr().out == ""


def test_an_installed_vllms_own_plug_ins_are_ignored(
    as_vllm: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    _install(as_vllm, f"{_THEIRS} say", "vllm.platform_plugins say", name="vllm")
    load_plugins()
    assert (caplog.records, capsys.readouterr().out) == ([], "")
