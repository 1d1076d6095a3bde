"""`quire bench throughput` with the flags of vLLM's, on the bundled model's shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quire.cli import main

COMMAND = ("bench", "throughput")
DUMMY = ("--load-format", "dummy", "--dtype", "float32", "--max-num-seqs", "8")
NOWHERE = ("--model", "/nowhere")  # which is not looked for when something else is wrong
QUESTION, ANSWER = "What is the capital of France, please?", "It is Paris, of course."


def measured(folder: Path, *words: str) -> dict[str, Any]:
    file = folder / "results.json"
    assert main([*COMMAND, *DUMMY, *words, "--output-json", str(file)]) == 0
    results: dict[str, Any] = json.loads(file.read_text())
    return results


def conversations(folder: Path, *questions: str) -> str:
    path = folder / "sharegpt.json"
    turns = [[{"value": question}, {"value": ANSWER}] for question in questions]
    path.write_text(json.dumps([{"conversations": both} for both in turns]))
    return str(path)


def test_random_prompts_as_vllm_calls_them(tmp_path: Path) -> None:
    lengths = ["--random-input-len", "5", "--random-output-len", "4", "--random-prefix-len", "2"]
    results = measured(tmp_path, "--dataset-name", "random", *lengths, "--num-prompts", "3")
    assert results["total_num_prompt_tokens"] == 3 * 7
    assert results["total_num_output_tokens"] == 3 * 4


def test_tokens_of_all_continuations_count(tmp_path: Path) -> None:
    lengths = ["--input-len", "5", "--output-len", "4", "--num-prompts", "3"]
    results = measured(tmp_path, *lengths, "--n", "2")
    assert (results["num_requests"], results["total_num_output_tokens"]) == (3, 3 * 2 * 4)


@pytest.mark.parametrize("words", [["--dataset"], ["--dataset-name", "sharegpt", "--dataset-path"]])
def test_questions_of_a_file(tmp_path: Path, words: list[str]) -> None:
    file = conversations(tmp_path, QUESTION, "x", "y " * 3000)
    once = measured(tmp_path, *words, file, "--num-prompts", "1")
    again = measured(tmp_path, *words, file, "--num-prompts", "3")
    assert once["total_num_output_tokens"] > 3
    for name in ("num_requests", "total_num_prompt_tokens", "total_num_output_tokens"):
        assert again[name] == 3 * once[name]
    short = measured(tmp_path, *words, file, "--num-prompts", "1", "--output-len", "2")
    assert short["total_num_output_tokens"] == 2


def test_a_file_without_a_question_that_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--dataset", conversations(tmp_path, QUESTION), "--max-model-len", "8"]
    assert main([*COMMAND, *DUMMY, *words]) == 1
    assert "fits with its answer in the 8 tokens of max_model_len" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--async-engine", "async_engine=True: `LLM` is measured here; `quire bench serve`"),
        ("--profile", "profile=True: there is no profiler; leave it out"),
        ("--hf-split train", "data sets on the hub are not supported; use --dataset-name"),
        ("--hf-max-batch-size 8", "hf_max_batch_size=8: only Quire's engine is measured"),
        ("--lora-path x", "lora_path='x': LoRA adapters are not supported yet"),
        ("--prefix-repetition-prefix-len 8", "`quire bench serve --dataset-name prefix_repetiti"),
        ("--dataset-path /nowhere.json", "--dataset-path /nowhere.json is not a file"),
        ("--dataset-name sharegpt", "sharegpt is read from a file; name it with --dataset-path"),
        ("--dataset-name random --dataset x", "random makes no use of --dataset-path; leave"),
        ("--dataset x --input-len 3", "sharegpt makes no use of --input-len; leave that out"),
        ("--workload nano --dataset-name random", "how long; leave out --dataset-name"),
        ("--seed -1", "--seed -1 makes no prompts; give at least 0"),
        ("--workload nano --n 2", "what the requests are and how long; leave out --n"),
    ],
)
def test_what_would_measure_something_else_is_refused_before_the_model_loads(
    capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    assert main([*COMMAND, *NOWHERE, *words.split()]) == 1
    assert message in capsys.readouterr().err


def test_what_is_so_anyway_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quire.log.setup", lambda: None)  # its handler would hide the records
    measured(tmp_path, "--input-len", "3", "--output-len", "2", "--disable-detokenize")
    assert "no output is turned into text here" in caplog.text


def test_the_help_says_why_a_flag_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([*COMMAND, "--help=async-engine"])
    assert "--async-engine is refused: `LLM` is measured here" in capsys.readouterr().out
