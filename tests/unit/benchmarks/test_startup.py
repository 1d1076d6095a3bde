"""Which starts are measured, and with which caches of code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from benchmarks.gpu_parts.records import Records
from benchmarks.gpu_parts.startup import CACHE_VARIABLES, startup_unit
from benchmarks.gpu_parts.units import Unit


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The environments of the starts, which take no time."""
    environments: list[dict[str, str]] = []

    def run(words: list[str], env: dict[str, str], **options: Any) -> SimpleNamespace:
        environments.append(env)
        result = {"first_token": 1.0, "python": 0.1, "imports and config": 0.2, "phases": {}}
        return SimpleNamespace(returncode=0, stdout=json.dumps(result))

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.delenv("PYTHONPYCACHEPREFIX", raising=False)
    return environments


def measure(folder: Path) -> list[str]:
    """How each start was made."""
    records = Records(folder / "records.jsonl")
    options = {"engine": {}}
    unit = Unit(kind="startup", name="startup", items=("tiny",), options=options, item_s={})
    with startup_unit(unit, records) as do:
        do("tiny")
    return [record["how"] for record in records.read() if record["kind"] == "startup"]


def test_the_second_start_finds_the_caches_of_the_first(
    monkeypatch: pytest.MonkeyPatch, starts: list[dict[str, str]], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert measure(tmp_path) == ["cold", "warm"]
    cold, warm = starts
    assert all(cold[name] == warm[name] for name in CACHE_VARIABLES)
    assert "PYTHONPYCACHEPREFIX" not in cold


def test_where_python_may_not_keep_bytecode_a_start_before_compiles_it(
    monkeypatch: pytest.MonkeyPatch, starts: list[dict[str, str]], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert measure(tmp_path) == ["cold", "warm", "warm, no bytecode"]
    before, cold, warm, without = starts
    assert before["PYTHONPYCACHEPREFIX"] == cold["PYTHONPYCACHEPREFIX"]
    assert warm["PYTHONPYCACHEPREFIX"] == cold["PYTHONPYCACHEPREFIX"]
    assert before["PYTHONDONTWRITEBYTECODE"] == ""
    assert before["TRITON_CACHE_DIR"] != cold["TRITON_CACHE_DIR"] == warm["TRITON_CACHE_DIR"]
    assert without["PYTHONDONTWRITEBYTECODE"] == "1" and "PYTHONPYCACHEPREFIX" not in without
    assert without["TRITON_CACHE_DIR"] == cold["TRITON_CACHE_DIR"]
