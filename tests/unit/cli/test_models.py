"""``quire models``: what is supported, for people and for programs."""

from __future__ import annotations

import json

import pytest

from quire.cli import main
from quire.models.registry import ModelRegistry


def test_the_table_names_every_architecture_within_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["models"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ModelRegistry.get_supported_archs())
    assert "meta-llama/Llama-3.1-8B-Instruct" in shown
    assert "--model-impl transformers" in shown
    assert max(map(len, shown.split("Other decoders")[0].splitlines())) <= 80


def test_the_table_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert "OPTForCausalLM" in found["opt"]["architectures"]
    assert found["opt"]["examples"] and found["opt"]["special"].startswith("OPT")
