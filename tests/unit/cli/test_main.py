"""Commands from their words to their output and status, on the bundled model's shape."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

import quire
from quire.cli import main
from quire.cli.commands import COMMANDS

DUMMY = ("--load-format", "dummy", "--dtype", "float32")


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    assert all(name in overview for name in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == quire.__version__
    assert main(["bench", "--help"]) == 0
    assert "throughput" in capsys.readouterr().out
    assert main([]) == 2


def test_help_imports_no_torch() -> None:
    code = "import sys; from quire.cli import main; main(['generate', '--help'])"
    code = f"import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); {code}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0
    assert result.stdout.endswith("False\n")
    assert "--max-model-len" in result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["genrate"], "quire: error: there is no command 'genrate'; did you mean generate?"),
        (["bench", "speed"], "quire bench: error: there is no command 'speed'"),
    ],
)
def test_unknown_commands(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.strip() == message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["generate", "-p", "x", "--model", "/nonexistent"], "'/nonexistent' does not exist"),
        (["generate", "-p", "x", "--max-model-len", "1M"], "max_model_len=1048576 is larger"),
        (["generate", "-p", "x", *DUMMY, "--temperature", "9"], "temperature must be"),
        (["generate", "-p", "x", *DUMMY, "--stream", "--json"], "--stream shows one continuation"),
        (["generate", "-p", "x", "--enable-lora"], "enable_lora=True: LoRA adapters are not"),
        (["plan", "--hf-overrides.hidden_act", "banana"], "'hidden_act' = 'banana'"),
    ],
)
def test_a_failure_is_one_line_and_status_1(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(words) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("quire: error: ") and captured.err.count("\n") == 1
    assert message in captured.err


def test_a_traceback_on_request(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUIRE_TRACEBACK", "1")
    assert main(["generate", "-p", "x", "--model", "/nonexistent"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_prompts_from_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\n\ntwo\n"))
    assert (
        main(["generate", *DUMMY, "--max-tokens", "3", "--n", "2", "--json", "--ignore-eos"]) == 0
    )
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [result["prompt"] for result in results] == ["one", "two"]
    for result in results:
        assert [output["num_tokens"] for output in result["outputs"]] == [3, 3]
        assert {output["finish_reason"] for output in result["outputs"]} == {"length"}


def test_streamed_text_is_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", *DUMMY, "-p", "one", "two", "--max-tokens", "6", "--temperature", "0"]
    assert main([*words, "--stream"]) == 0
    streamed = capsys.readouterr().out
    assert main([*words, "--no-stream"]) == 0
    assert streamed == capsys.readouterr().out
    assert streamed.startswith("one")


@pytest.mark.parametrize("dtype", ["half", "bfloat16", "float"])
def test_the_bundled_model_answers_in_every_format(
    capsys: pytest.CaptureFixture[str], dtype: str
) -> None:
    words = ["--dtype", dtype, "--device", "cpu", "--temperature", "0", "--max-tokens", "3"]
    assert main(["generate", "-p", "The capital of France is", *words]) == 0
    assert capsys.readouterr().out.startswith("The capital of France is Paris.")


def test_the_seed_decides_the_text_of_every_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", *DUMMY, "-p", "x", "x", "--max-tokens", "8", "--temperature", "1"]

    def texts(*seed: str) -> list[str]:
        assert main([*words, "--ignore-eos", "--json", *seed]) == 0
        lines = capsys.readouterr().out.splitlines()
        return [json.loads(line)["outputs"][0]["text"] for line in lines]

    first, second = texts()
    assert first != second
    assert texts() == texts("--seed", "0") == [first, second]


def test_no_prompt_at_all(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    assert main(["generate", *DUMMY]) == 1
    assert "there is no prompt" in capsys.readouterr().err


def test_chat_takes_a_turn_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n/clear\nhello\n/exit\nnever read\n"))
    assert main(["chat", *DUMMY, "--max-tokens", "4", "--temperature", "0"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first and first == second, "a cleared conversation starts anew"


def test_chat_with_a_template_of_ones_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{{ raise_exception('seen: ' + messages[0]['content']) }}")
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n"))
    assert main(["chat", *DUMMY, "--chat-template", str(template)]) == 1
    assert "seen: hello" in capsys.readouterr().err


def test_demo_answers_remembers_and_draws_the_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    shown = capsys.readouterr().out
    assert "The capital of France is Paris." in shown
    assert "42" in shown
    assert "7 requests at once: " in shown and " tokens/s" in shown
    _, pictures = shown.split("> What is my name?")
    assert "Alia" in pictures.splitlines()[1]
    busiest, now = pictures.split("KV blocks now")
    assert "█ 0 in use" not in busiest and "▓ 0 shared" not in busiest
    assert "█ 0 in use   ▓ 0 shared" in now and "░ 0 cached" not in now


def test_plan_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--memory", "1GiB", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["memory_bytes"] == 2**30
    assert plan["longest_context"] == plan["model_length"]
    assert main(["plan", "--memory", "1MiB"]) == 1
    assert "does not fit" in capsys.readouterr().out


def test_collect_env_keeps_secrets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "secret-1")
    monkeypatch.setenv("HF_TOKEN", "secret-2")
    monkeypatch.setenv("VLLM_USE_MODELSCOPE", "0")
    assert main(["collect-env"]) == 0
    text = capsys.readouterr().out
    assert "VLLM_USE_MODELSCOPE  0" in text and "torch" in text
    assert "secret" not in text
    assert main(["collect-env", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["Quire"]["version"] == quire.__version__


def test_bench_throughput_counts_tokens(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    words = ["--num-prompts", "3", "--input-len", "5", "--output-len", "4", "--prefix-len", "2"]
    assert main(["bench", "throughput", *DUMMY, *words, "--output-json", str(file)]) == 0
    results = json.loads(file.read_text())
    assert results["num_requests"] == 3
    assert results["total_num_prompt_tokens"] == 3 * 7
    assert results["total_num_output_tokens"] == 3 * 4
    assert results["total_num_tokens"] == 33
    assert results["tokens_per_second"] == pytest.approx(33 / results["elapsed_time"])
    assert capsys.readouterr().out.startswith("Throughput: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["throughput", "--num-prompts", "0"], "--num-prompts: 0 is too small; give at least 1"),
        (["throughput", "--output-len", "0"], "--output-len: 0 is too small; give at least 1"),
        (["throughput", "--prefix-len=-1"], "--prefix-len: -1 is too small; give at least 0"),
        (["latency", "--num-iters", "0"], "--num-iters: 0 is too small; give at least 1"),
    ],
)
def test_a_benchmark_of_nothing_is_refused(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["bench", *words])
    assert message in capsys.readouterr().err


def test_bench_latency(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    words = ["--batch-size", "2", "--input-len", "5", "--output-len", "2"]
    iterations = ["--num-iters-warmup", "1", "--num-iters", "3"]
    words = [*words, *iterations, "--output-json", str(file)]
    assert main(["bench", "latency", *DUMMY, *words]) == 0
    results = json.loads(file.read_text())
    assert len(results["latencies"]) == 3
    assert results["avg_latency"] == pytest.approx(sum(results["latencies"]) / 3)
    assert results["percentiles"]["50"] == sorted(results["latencies"])[1]
