"""Commands from their words to their output and status, on the bundled model's shape."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import quire
from quire.as_vllm.names import VERSION
from quire.cli import collect_env, main
from quire.cli.commands import COMMANDS

NOWHERE = ("--model", "/nowhere")  # which is not looked for when something else is wrong
DUMMY = ("--load-format", "dummy", "--dtype", "float32")


def typed(text: str | bytes) -> io.TextIOWrapper:
    """Standard input that holds ``text``."""
    data = text if isinstance(text, bytes) else text.encode()
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8")


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    assert all(name in overview for name in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == quire.__version__
    assert main(["bench", "--help"]) == 0
    assert "throughput" in capsys.readouterr().out
    assert main([]) == 2


def test_help_about_a_word_has_the_flags_of_all_commands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--help=stop_token"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("--stop-token-ids ID [ID ...]  stop after any of these\n    of quire ")
    assert "quire generate, quire chat" in told and told.count("--stop-token-ids") == 1
    assert main(["--help=percentile"]) == 0
    assert main(["--help=top-p"]) == 0  # some commands' flags say nothing of themselves
    assert "of quire bench serve" in capsys.readouterr().out
    assert main(["bench", "--help=max-model-len"]) == 0
    assert "of quire bench throughput" in capsys.readouterr().out
    assert main(["--help=step_timeout"]) == 0
    assert capsys.readouterr().out.startswith("QUIRE_STEP_TIMEOUT (environment variable)  seconds ")
    assert main(["--help=max-model-lenn"]) == 2
    assert "no help about 'max-model-lenn'; did you mean --max-model-len" in (
        capsys.readouterr().err
    )


def test_help_about_what_there_is_not_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help=quantization"]) == 0
    told = capsys.readouterr().out
    assert "--quantization is refused: quantized weights are not supported yet" in told
    assert told.count("--quantization is") == 1
    assert main(["--help=embedding"]) == 0
    assert "--task is refused: only text generation" in capsys.readouterr().out


def test_help_about_a_word_names_every_command_that_has_a_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--help=there is no profiler"]) == 0
    by_reason = "--profile is refused: there is no profiler; leave it out\n    of quire bench "
    assert f"{by_reason}throughput, quire bench latency, quire bench serve" in (
        capsys.readouterr().out
    )
    assert main(["--help=profiler"]) == 0  # the name of a flag that `bench serve` has not
    told = capsys.readouterr().out
    assert "--profiler-config has no effect" in told and "--profile is" not in told


@pytest.mark.parametrize(
    ("words", "flag", "said"),
    [
        ("serve", "--log-config-file", "is refused: use --log-format and QUIRE_LOGGING_LEVEL"),
        ("serve", "--max-num-queued-tokens", "is refused: the queue is limited in requests: "),
        ("serve", "--tokens-only", "is refused: send token ids as the prompt of /v1/completions"),
        ("serve", "--lora-modules", "is refused: LoRA adapters are not supported yet"),
        ("generate --prompt x", "--max-num-queued-reqs", "is refused: only `quire serve` limits"),
        ("generate --prompt x", "--max-num-queued-tokens", "is refused: only `quire serve` limits"),
        ("generate --prompt x", "--tokens-only", "is refused: use skip_tokenizer_init"),
        ("run-batch -i in -o out", "--log-config-file", "is refused: use QUIRE_LOGGING_LEVEL"),
        ("bench serve", "--lora-modules", "is refused: all requests name one model"),
        ("bench throughput", "--lora-modules", "is refused: LoRA adapters are not supported yet"),
    ],
)
def test_help_about_another_engines_flag_says_what_the_flag_says(
    words: str, flag: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([*words.split(), f"--help={flag[2:]}"])
    assert f"{flag} {said}" in capsys.readouterr().out
    value = [] if flag == "--tokens-only" else ["7"]
    assert main([*words.split(), flag, *value]) == 1
    assert said.removeprefix("is refused: ") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "flag", "said"),
    [
        ("run-batch", "--enable-server-load-tracking", "a batch opens no port"),
        ("run-batch", "--enable-tokenizer-info-endpoint", "a batch opens no port"),
        ("serve", "--enable-server-load-tracking", "/load always counts, at no cost"),
        ("serve", "--enable-tokenizer-info-endpoint", "there is no such endpoint"),
    ],
)
def test_help_says_why_a_flag_has_no_effect_in_that_command(
    words: str, flag: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([words, f"--help={flag[2:]}"])
    assert f"{flag} has no effect: {said}" in capsys.readouterr().out


def test_help_tells_which_command_has_which_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help=max-num-queued-reqs"]) == 0
    told = capsys.readouterr().out
    alias = "--max-num-queued-reqs is another name: use max_queued_requests\n    of quire serve\n"
    assert alias in told
    assert "is refused: only `quire serve` limits its queue\n    of quire generate, " in told


def test_the_version_under_the_name_vllm(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUIRE_AS_VLLM", "/a/folder")
    assert main(["--version"]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{VERSION} (") and f"Quire {quire.__version__}" in told


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
        (
            ["help"],
            "quire: error: there is no command 'help'; `quire --help` lists them, and --help=WORD "
            "the flags that mention a word",
        ),
        (["-h=port"], "quire: error: -h=port: write the word after --help, as --help=port"),
        (["chart"], "quire: error: there is no command 'chart'; did you mean chat?"),
        (
            ["bench", "speed"],
            "quire bench: error: there is no command 'speed'; the commands are throughput, "
            "latency, startup, serve",
        ),
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
        (["generate", *NOWHERE, "--temperature", "9"], "temperature must be"),
        (["chat", *NOWHERE, "--top-p", "9"], "top_p must be"),
        (["bench", "throughput", "--backend", "vllm", *NOWHERE], "/nowhere"),
        (["generate", *NOWHERE, "--min-tokens", "200"], "min_tokens must be at most max_tokens"),
        (["generate", *NOWHERE, "--n", "3", "--best-of", "2"], "best_of must be at least n=3"),
        (["generate", *NOWHERE, "--logprobs", "2"], "--logprobs are printed as JSON; add --json"),
        (["generate", *NOWHERE, "--stream", "--best-of", "2"], "leave out --json, --n and"),
        (["generate", "Once upon a time"], "'Once upon a time' is not a model, which is"),
        (["generate", "/there", *NOWHERE, "-p", "x"], "the model is given twice, as '/there' and"),
        (["generate", "/nonexistent", "-p", "x"], "'/nonexistent' does not exist"),
        (["generate", "-p", "x", "--enable-lora"], "enable_lora=True: LoRA adapters are not"),
        (["chat", *NOWHERE, "--api-key", "x"], "name the server with --url URL, or leave out"),
        (["run-batch", "-i", "i", "-o", "o", "--api-key", "x"], "--api-key is for a server"),
        (["generate", *NOWHERE, "--served-model-name", "x"], "--served-model-name is the name by"),
        (
            ["chat", *NOWHERE, "--served-model-name", "x"],
            "this command has no clients, so leave",
        ),
        (["plan", "--served-model-name", "x"], "--served-model-name is the name by"),
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
    monkeypatch.setattr(sys, "stdin", typed("one\n\ntwo\n"))
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


@pytest.mark.parametrize("shown", ["--stream", "--no-stream"])
def test_a_prompt_that_is_too_long_is_named_by_where_it_stands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, shown: str
) -> None:
    words = ["generate", *DUMMY, "--max-model-len", "32", "--max-tokens", "1", shown]
    monkeypatch.setattr(sys, "stdin", typed(f"good\n\n{'7 ' * 40}\ngood\n"))
    assert main(words) == 1
    error = "quire: error: {} tokens, but max_model_len is 32 tokens for prompt"
    told = capsys.readouterr().err.splitlines()[-1]
    assert re.match(error.format(r"line 3 of standard input has \d+"), told)
    assert main([*words, "--prompt", "good", "7 " * 40]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert re.match(error.format(r"prompt 2 has \d+"), told)
    assert "or set --truncate-prompt-tokens, or start" in told
    assert main([*words, "--prompt", "7 " * 40]) == 1
    assert "or set --truncate-prompt-tokens, or start" in capsys.readouterr().err


def test_only_the_end_of_a_prompt_is_kept_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", *DUMMY, "-p", "one two three " * 9, "--max-tokens", "1", "--json"]
    assert main([*words, "--truncate-prompt-tokens", "5"]) == 0
    assert json.loads(capsys.readouterr().out)["num_prompt_tokens"] == 5
    short = ["--max-model-len", "16", "--truncate-prompt-tokens", "-1"]
    assert main([*words, *short]) == 0
    assert json.loads(capsys.readouterr().out)["num_prompt_tokens"] == 15


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
    monkeypatch.setattr(sys, "stdin", typed("\n"))
    assert main(["generate", *DUMMY]) == 1
    assert "there is no prompt" in capsys.readouterr().err
    assert main(["generate", "--model", "/nonexistent"]) == 1
    assert "/nonexistent" in capsys.readouterr().err


def test_chat_takes_a_turn_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", typed("hello\n/clear\nhello\n/exit\nnever read\n"))
    assert main(["chat", *DUMMY, "--max-tokens", "4", "--temperature", "0"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first and first == second, "a cleared conversation starts anew"


def test_chat_with_a_template_of_ones_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{{ raise_exception('seen: ' + messages[0]['content']) }}")
    monkeypatch.setattr(sys, "stdin", typed("hello\n"))
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


@pytest.mark.parametrize(
    ("given", "num_blocks"),
    [
        (["--max-model-len", "2048"], 129),
        (["--kv-cache-memory-bytes", "4MiB"], 128),
    ],
)
def test_the_demo_has_blocks_for_what_is_asked_of_it(
    capsys: pytest.CaptureFixture[str], given: list[str], num_blocks: int
) -> None:
    assert main(["demo", "--device", "cpu", *given]) == 0
    assert f" {num_blocks} KV blocks\n" in capsys.readouterr().out


def test_plan_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--memory", "2GiB", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["memory_bytes"], plan["device"], plan["fits"]) == (2**31, "a GPU", True)
    assert plan["longest_context"] == plan["max_model_len"]
    assert main(["plan", "--memory", "1MiB", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["fits"] is False
    assert main(["plan", "--memory", "1MiB"]) == 1
    assert "does not fit" in capsys.readouterr().out


def test_a_memory_without_its_unit_is_asked_about(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["plan", "--memory", "24"])
    assert "24 is 24 bytes, too few for a model; did you mean 24GiB?" in capsys.readouterr().err


def test_what_is_accepted_in_vain_is_told() -> None:
    """In a process of its own, where nothing has set up logging."""
    words = ["--num-scheduler-steps", "8"]
    code = "import sys; from quire.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "plan", "--device", "cpu", *words]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0
    (line,) = result.stderr.splitlines()
    assert line.startswith("WARNING ")
    assert "num_scheduler_steps=8 is accepted and has no effect: the scheduler" in line


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_input_that_is_not_utf8_names_the_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(sys, "stdin", typed(b"good\nna\xefve\n"))
    assert main([command, *DUMMY, "--max-tokens", "1"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("quire: error: line 2 of standard input is not UTF-8 (byte 0xef at 3)")


def test_several_continuations_are_parted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", *DUMMY, "-p", "one", "--n", "3", "--max-tokens", "2"]) == 0
    assert capsys.readouterr().out.count("\n--------\none") == 2


def test_logprobs_and_the_best_are_in_the_json(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--max-tokens", "3", "--ignore-eos", "--json", "--best-of", "3", "--logprobs", "2"]
    assert main(["generate", *DUMMY, "-p", "one", *words]) == 0
    (output,) = json.loads(capsys.readouterr().out)["outputs"]
    assert len(output["logprobs"]) == 3
    own = [position[0]["logprob"] for position in output["logprobs"]]
    assert sum(own) == pytest.approx(output["cumulative_logprob"])
    assert {one["rank"] for one in output["logprobs"][0]} >= {1, 2}


def test_a_stop_token_ends_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", *DUMMY, "-p", "one", "--temperature", "0", "--json", "--ignore-eos"]
    assert main([*words, "--max-tokens", "1", "--logprobs", "0"]) == 0
    (output,) = json.loads(capsys.readouterr().out)["outputs"]
    stop = output["logprobs"][0][0]["token_id"]
    assert main([*words, "--max-tokens", "9", "--stop-token-ids", str(stop), "4095"]) == 0
    (output,) = json.loads(capsys.readouterr().out)["outputs"]
    assert (output["num_tokens"], output["stop_reason"]) == (1, stop)


def test_collect_env_keeps_secrets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "secret-1")
    monkeypatch.setenv("HF_TOKEN", "secret-2")
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "https://me:secret-3@hub.example")
    monkeypatch.setenv("VLLM_USE_MODELSCOPE", "0")
    assert main(["collect-env"]) == 0
    text = capsys.readouterr().out
    assert "VLLM_USE_MODELSCOPE  0" in text and "torch" in text
    assert "secret" not in text
    environment = collect_env.collect()["Environment"]
    assert environment["HF_TOKEN"] == environment["VLLM_API_KEY"] == "(set)"
    assert environment["MODELSCOPE_ENDPOINT"] == "https://hub.example"
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
        (["throughput", "--output-len", "0"], "/--random-output-len: 0 is too small; give at"),
        (["throughput", "--prefix-len=-1"], "--random-prefix-len: -1 is too small; give at"),
        (["latency", "--num-iters", "0"], "--num-iters: 0 is too small; give at least 1"),
    ],
)
def test_a_benchmark_of_nothing_is_refused(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["bench", *words])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["throughput", "latency", "startup"])
def test_a_file_that_cannot_be_written_is_refused_before_the_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str
) -> None:
    for file, message in ((tmp_path, "is a folder"), (tmp_path / "no" / "x", "there is no folder")):
        with pytest.raises(SystemExit, match="2"):
            main(["bench", kind, *NOWHERE, "--output-json", str(file)])
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["throughput", "latency", "startup"])
def test_a_benchmark_that_serves_nothing_has_no_served_name(
    capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    assert main(["bench", kind, *NOWHERE, "--served-model-name", "x"]) == 1
    error = capfd.readouterr().err
    assert error.startswith(
        "quire: error: --served-model-name is the name by which clients of `quire serve`"
    )
    assert error.count("\n") == 1


@pytest.mark.parametrize("kind", ["throughput", "latency"])
def test_a_benchmark_longer_than_the_context_is_refused(
    capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    words = ["--max-model-len", "100", "--input-len", "50", "--output-len", "51"]
    assert main(["bench", kind, *DUMMY, *words]) == 1
    message = "a prompt of 50 tokens and 51 of output are more than the 100 of max_model_len"
    assert message in capsys.readouterr().err


def test_bench_latency(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    words = ["--batch-size", "2", "--input-len", "5", "--output-len", "2"]
    iterations = ["--num-iters-warmup", "1", "--num-iters", "3"]
    words = [*words, *iterations, "--output-json", str(file)]
    assert main(["bench", "latency", *DUMMY, *words]) == 0
    results = json.loads(file.read_text())
    assert f"P90 latency: {results['percentiles']['90']:.4f} s" in capsys.readouterr().out
    assert len(results["latencies"]) == 3
    assert results["avg_latency"] == pytest.approx(sum(results["latencies"]) / 3)
    assert results["percentiles"]["50"] == sorted(results["latencies"])[1]
