"""What becomes of every flag of `quire serve`, ours and those of other servers."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import pytest

from quire.args import EngineArgs
from quire.cli import main, serve
from quire.cli.engine_flags import engine_args
from quire.cli.parser import Parser
from quire.server.args import ServerArgs

TABLE = Path(__file__).with_name("serve_flags.txt")
ROWS = [
    (words.strip(), outcome.strip())
    for words, _, outcome in (
        line.partition("|") for line in TABLE.read_text().splitlines() if not line.startswith("#")
    )
]


def parse(words: list[str]) -> argparse.Namespace:
    parser = Parser(prog="quire serve", description=None)
    serve.add_arguments(parser)
    return parser.parse(words)


def arguments(words: list[str]) -> tuple[ServerArgs, EngineArgs]:
    parsed = parse(words)
    return serve.server_args(parsed), engine_args(parsed)


def test_the_table_has_every_flag_of_the_seeds() -> None:
    assert len(ROWS) > 135
    assert len({words for words, _ in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("words", "outcome"), ROWS)
def test_a_flag_has_its_verdict(words: str, outcome: str, caplog: pytest.LogCaptureFixture) -> None:
    defaults = arguments([])
    with caplog.at_level(logging.WARNING, logger="quire"):
        if outcome == "refused":
            with pytest.raises(ValueError, match=r"\w+=.+: \w+"):
                arguments(words.split())
            return
        changed = arguments(words.split()) != defaults
    assert changed == (outcome in ("kept", "alias"))
    assert [record.levelname for record in caplog.records] == ["WARNING"] * (outcome == "noted")


def test_flags_reach_their_arguments() -> None:
    server, engine = arguments(
        "a-model --port 9000 --api-key one two --api-key three --max-num-queued-reqs 7 "
        "--served-model-name x y --max-model-len 8k -tp 2".split()
    )
    assert (server.port, server.api_key) == (9000, ["one", "two", "three"])
    assert server.max_queued_requests == 7
    assert (engine.model, engine.served_model_name) == ("a-model", ["x", "y"])
    assert (engine.max_model_len, engine.tensor_parallel_size) == (8000, 2)


@pytest.mark.parametrize(
    ("words", "other", "own"),
    [
        ("--max-queued-requests 3 --max-num-queued-reqs 5", "num_queued_reqs", "queued_requests"),
        ("--max-request-body-size 1MiB --max-request-body-bytes 2MiB", "body_bytes", "body_size"),
    ],
)
def test_two_values_under_two_names_are_refused(words: str, other: str, own: str) -> None:
    with pytest.raises(ValueError, match=rf"{other} is another name of \w+{own}; give only one"):
        arguments(words.split())


def test_one_value_may_have_two_names() -> None:
    server, _ = arguments("--max-queued-requests 3 --max-num-queued-reqs 3".split())
    assert server.max_queued_requests == 3


def test_an_unknown_flag_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(["--max-queue-requests", "3"])
    error = capsys.readouterr().err
    assert error.startswith("quire serve: error: unknown argument --max-queue-requests")
    assert "--max-queued-requests" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("topic", "shown"),
    [
        ("lora", ("--enable-lora is refused: LoRA", "--max-loras has no effect: LoRA")),
        ("quantization", ("--quantization is refused: quantized weights",)),
        ("tls", ("--ssl-keyfile", "--ssl-ca-certs", "--ssl-cert-reqs", "--enable-ssl-refresh is")),
        ("port", ("--port N", "--master-port has no effect")),
    ],
)
def test_help_about_a_word_has_verdicts_too(
    topic: str, shown: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse([f"--help={topic}"])
    told = capsys.readouterr().out
    assert all(one in told for one in shown) and "--enable-sleep-mode" not in told


def test_the_short_flag_of_help_leads_to_the_long_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(["-h=port"])
    assert "write the word after --help, as --help=port" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--api-key-file", "/nonexistent"], "--api-key-file nonexistent cannot be read: No such"),
        (["--served-model-name", ""], "--served-model-name is empty; give a name, or leave it"),
        (["--served-model-name", "a", " "], "--served-model-name is empty"),
        (["--api-key", ""], "--api-key is empty"),
        (["--api-key", "schlüssel"], "characters that headers cannot carry"),
        (["--ssl-certfile", "/nonexistent.pem"], "--ssl-certfile /nonexistent.pem cannot be read"),
        (["--ssl-keyfile", "key.pem"], "TLS needs --ssl-certfile"),
        (["--middleware", "no.such.Thing"], "--middleware no.such.Thing: No module named 'no'"),
        (["--host", "300.1.1.1"], "cannot listen at 300.1.1.1:8000"),
        (["--uds", "/nonexistent/socket"], "cannot listen at the Unix socket /nonexistent/socket"),
        (["--api-server-count", "0"], "give at least 1"),
        (
            ["--api-server-count", "2", "--disable-frontend-multiprocessing"],
            "leave out --api-server-count",
        ),
        (["--max-model-len", "-5"], "max_model_len=-5 is not a length; give a number of tokens"),
        (["--gpu-memory-utilization", "2"], "gpu_memory_utilization=2.0 is a share"),
        (["--gpu-memory-utilization", "nan"], "gpu_memory_utilization=nan is a share"),
        (["--max-num-seqs", "0"], "max_num_seqs=0 is too small; give at least 1"),
        (["--tensor-parallel-size", "2"], "tensor_parallel_size=2: only one process computes"),
        (["--block-size", "7"], "block_size=7 is not one of 8, 16, 32, 64, 128"),
        (["--kv-cache-memory-bytes", "0"], "kv_cache_memory_bytes=0 is too small"),
        (["--max-logprobs", "-2"], "max_logprobs=-2 is too small"),
        (["--attention-backend", "none-such"], "attention_backend='none-such': "),
        (["--headless"], "only one node computes yet"),
        (["/nonexistent"], "model folder '/nonexistent' does not exist; check the path"),
    ],
)
def test_mistakes_are_one_line_and_no_traceback(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *words]) == 1
    error = capsys.readouterr().err
    assert message.replace("file nonexistent", "file /nonexistent") in error
    assert error.count("\n") == 1
