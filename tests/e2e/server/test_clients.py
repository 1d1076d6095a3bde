"""The commands that talk to servers, with the bundled model behind `quire serve` and in process."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from quire.cli import main
from tests.fakes.server import MODEL

ENGINE = ("--device", "cpu", "--dtype", "float32", "--served-model-name", MODEL)


def line(custom_id: str, path: str, **body: Any) -> str:
    content = {"custom_id": custom_id, "method": "POST", "url": path, "body": body}
    return json.dumps(content) + "\n"


def completion(number: int, max_tokens: int) -> str:
    prompt = f"The number {number} is"
    fields = {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True}
    return line(f"r{number}", "/v1/completions", **fields)


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(one) for one in path.read_text().splitlines()]


MIXED = (
    line("plain", "/v1/completions", prompt="The capital of France is", max_tokens=8, temperature=0)
    + line(
        "chat",
        "/v1/chat/completions",
        messages=[{"role": "user", "content": "What is 2 + 3?"}],
        max_tokens=16,
        temperature=0,
    )
    + "oops\n"
    + line("embed", "/v1/embeddings", input="x")
    + line("wrong", "/v1/completions", prompt="x", temperature=-1)
    + line("other", "/v1/completions", prompt="x", model="nobody")
)


def check_mixed(path: Path) -> dict[Any, dict[str, Any]]:
    by_id = {one["custom_id"]: one for one in records(path)}
    assert by_id[None]["error"]["line"] == 3
    statuses = {key: one["response"]["status_code"] for key, one in by_id.items() if key}
    embed = statuses.pop("embed")
    assert embed in (404, 501)
    assert statuses == {"plain": 200, "chat": 200, "wrong": 400, "other": 404}
    assert "Paris" in by_id["plain"]["response"]["body"]["choices"][0]["text"]
    return by_id


def answers(by_id: dict[Any, dict[str, Any]]) -> list[Any]:
    return [by_id[key]["response"]["body"]["choices"] for key in ("plain", "chat")]


def test_a_batch_is_the_same_in_process_and_over_http(
    tmp_path: Path, server_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source, here, there = (tmp_path / name for name in ("in", "here", "there"))
    source.write_text(MIXED)
    words = ["run-batch", "-i", str(source)]
    assert main([*words, "-o", str(here), *ENGINE, "--ordered"]) == 3
    assert "2 lines answered, 4 with errors" in capsys.readouterr().err
    assert [one["custom_id"] for one in records(here)] == [
        *("plain", "chat", None, "embed", "wrong", "other")
    ]
    assert main([*words, "-o", str(there), "--url", server_url]) == 3
    assert answers(check_mixed(here)) == answers(check_mixed(there))
    assert main([*words, "-o", str(here), *ENGINE]) == 3
    assert "all 6 lines have an answer already" in capsys.readouterr().err


def test_a_batch_that_is_killed_goes_on_without_doing_a_line_twice(tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    lengths = [1 if n < 6 else 150 for n in range(20)]
    source.write_text("".join(completion(n, length) for n, length in enumerate(lengths)))
    words = ["run-batch", "-i", str(source), "-o", str(output), "--max-inflight", "6", *ENGINE]
    with subprocess.Popen([sys.executable, "-m", "quire", *words]) as run:
        while not output.exists() or output.read_bytes().count(b"\n") < 5:
            with contextlib.suppress(subprocess.TimeoutExpired):
                raise AssertionError(f"it ended with status {run.wait(0.02)}")
        run.kill()
    with output.open("ab") as file:
        file.write(b'{"id": "batch_req_torn", "custom_id": "r3')
    before = output.read_text().splitlines()[:-1]
    assert 5 <= len(before) < 20
    assert main(words) == 0
    found = records(output)
    assert Counter(one["custom_id"] for one in found) == {f"r{n}": 1 for n in range(20)}
    assert output.read_text().splitlines()[: len(before)] == before
    for one in found:
        usage = one["response"]["body"]["usage"]
        assert usage["completion_tokens"] == lengths[int(one["custom_id"][1:])]


def test_chat_and_complete_with_our_server(
    server_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chat", "--url", server_url, "-q", "What is 2 + 3?", "--temperature", "0"]) == 0
    assert "5" in capsys.readouterr().out
    words = ["--prompt", "The capital of France is", "--temperature", "0", "--max-tokens", "8"]
    assert main(["complete", "--url", f"{server_url}/v1", *words]) == 0
    assert capsys.readouterr().out.startswith("The capital of France is Paris")


@pytest.mark.parametrize("backend", ["openai", "openai-chat"])
def test_our_server_is_measured(backend: str, server_url: str, tmp_path: Path) -> None:
    words = ["--backend", backend, "--base-url", server_url, "--num-prompts", "6", "--ignore-eos"]
    words += ["--random-input-len", "16", "--random-output-len", "5", "--disable-tqdm"]
    words += ["--save-result", "--result-dir", str(tmp_path), "--result-filename", "r.json"]
    assert main(["bench", "serve", *words]) == 0
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["completed"] == 6 and result["total_output_tokens"] == 30
    if backend == "openai":
        assert result["total_input_tokens"] == 96
    assert 0 < result["mean_ttft_ms"] <= result["mean_e2el_ms"]
