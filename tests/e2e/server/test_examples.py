"""The examples run as they stand, but for `register_model.py`, which has a file of its own."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from quire.cli import main

EXAMPLES = Path(__file__).parents[3] / "examples"
# What their lines have in them.
OFFLINE = {
    "generate.py": [
        "'The capital of France is' -> ' Paris.'",
        "'The capital of Japan is' -> ' Tokyo.'",
        "'2 + 3 =' -> ' 5'",
    ],
    "chat_stream.py": [
        "> My name is Alia.",
        "Nice to meet you, Alia.",
        "> What is my name?",
        "Your name is Alia.",
    ],
    "async_engine.py": [
        "'The capital of France is' -> ' Paris.'",
        "'The capital of Japan is' -> ' Tokyo.'",
        "'Once upon a time' -> ', there was a small owl named Dri.",
    ],
    "beam_search.py": ["'The capital of France is Paris."] * 3,
}
SERVED = {
    "openai_client.py": ["0 ' Paris.'", "1 ' Paris.'", "17 + 25 = 42."],
    "anthropic_client.py": ["16 tokens in", "The capital of Japan is Tokyo."],
}
OTHERS = {"curl.sh", "batch.jsonl", "register_model.py"}


def run(name: str, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    path = str(EXAMPLES / name)
    monkeypatch.setattr(sys, "argv", [path, *words])
    runpy.run_path(path, run_name="__main__")


def check(printed: str, parts: list[str]) -> None:
    lines = printed.splitlines()
    assert len(lines) == len(parts), printed
    for line, part in zip(lines, parts, strict=True):
        assert part in line and line.strip(), printed


def test_every_example_is_run() -> None:
    found = {path.name for path in EXAMPLES.iterdir() if path.is_file()}
    assert found == {*OFFLINE, *SERVED, *OTHERS}


@pytest.mark.parametrize("name", OFFLINE)
def test_an_example_with_an_engine_of_its_own(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(name, monkeypatch)
    check(capsys.readouterr().out, OFFLINE[name])


@pytest.mark.parametrize("name", SERVED)
def test_a_client_of_a_server(
    name: str,
    server_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(name, monkeypatch, f"{server_url}/v1" if name.startswith("openai") else server_url)
    check(capsys.readouterr().out, SERVED[name])


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on PATH")
def test_a_script_with_curl(server_url: str) -> None:
    command = ["sh", str(EXAMPLES / "curl.sh"), server_url]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for part in ('"text":" Paris."', '"chat.completion"', "data: [DONE]", "my-id-1", '"tokens":['):
        assert part in done.stdout


def test_a_batch(server_url: str, tmp_path: Path) -> None:
    source, answers = EXAMPLES / "batch.jsonl", tmp_path / "answers.jsonl"
    assert main(["run-batch", "-i", str(source), "-o", str(answers), "--url", server_url]) == 0
    asked, answered = (
        {json.loads(line)["custom_id"]: json.loads(line) for line in path.read_text().splitlines()}
        for path in (source, answers)
    )
    assert asked.keys() == answered.keys()
    for name, request in asked.items():
        choices = answered[name]["response"]["body"]["choices"]
        assert len(choices) == request["body"].get("n", 1)
