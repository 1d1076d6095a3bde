import argparse

import pytest

from quire.args import EngineArgs
from quire.cli.parser import Parser


@pytest.fixture
def parser() -> Parser:
    parser = Parser(prog="quire test", description=None)
    parser.add_argument("text", nargs="?")
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--stop", nargs="+")
    EngineArgs.add_cli_args(parser)
    return parser


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--max_model_len", "8k"], "max_model_len", 8000),
        (["--max_model_len=8k"], "max_model_len", 8000),
        (["--enable-chunked-prefill"], "enable_chunked_prefill", True),
        (["--enable-chunked-prefill=False"], "enable_chunked_prefill", False),
        (["--enable_chunked_prefill", "false"], "enable_chunked_prefill", False),
        (["--no-enable-chunked-prefill"], "enable_chunked_prefill", False),
        (["--enable-chunked-prefill", "--", "true"], "text", "true"),
        (["--enable-chunked-prefill", "word"], "text", "word"),
        (["--hf-overrides.rope_theta", "1e6"], "hf_overrides", {"rope_theta": 1e6}),
        (
            ["--hf-overrides.rope.type=yarn", "--hf_overrides.rope.factor", "4"],
            "hf_overrides",
            {"rope": {"type": "yarn", "factor": 4}},
        ),
        (["--hf-overrides.attention_dropout"], "hf_overrides", {"attention_dropout": None}),
        (["--hf-overrides.a", "--model", "m"], "hf_overrides", {"a": None}),
        (["--hf-overrides.a", "--model", "m"], "model", "m"),
        (["--hf-overrides.architectures+", "X"], "hf_overrides", {"architectures": ["X"]}),
        (
            ["--hf-overrides.key1", "v", "--hf-overrides.a.b+", "3", "--hf-overrides.a.b+=4,5"],
            "hf_overrides",
            {"key1": "v", "a": {"b": ["3", "4", "5"]}},
        ),
        (["--hf-overrides.a=[1]", "--hf-overrides.a+=x"], "hf_overrides", {"a": [1, "x"]}),
        (["-cc.mode=3", "-cc.a.b", "x"], "compilation_config", {"mode": 3, "a": {"b": "x"}}),
        (["-O.mode=3"], "compilation_config", {"mode": 3}),
        (["-O3"], "compilation_config", 3),
        (["-ac.backend=FLASHINFER"], "attention_config", {"backend": "FLASHINFER"}),
        (["-sc", '{"method": "ngram"}'], "speculative_config", {"method": "ngram"}),
        (["-ep"], "enable_expert_parallel", True),
        (["-ep", "false"], "enable_expert_parallel", False),
        (["-dph"], "data_parallel_hybrid_lb", True),
        (["-dpe"], "data_parallel_external_lb", True),
        (["-dpm"], "data_parallel_multi_port_external_lb", True),
        (["-n", "2"], "nnodes", 2),
        (["-r=1"], "node_rank", 1),
        (["-n12"], "nnodes", 12),
        (["-r0"], "node_rank", 0),
        (["-q=awq"], "quantization", "awq"),
        (["--stop", "-n is_it. x"], "stop", ["-n is_it. x"]),
        (["--hf-overrides.a=1", "--hf-overrides.a=2"], "hf_overrides", {"a": 2}),
        (["--hf-overrides.a_b", "-- is_x. y"], "hf_overrides", {"a_b": "-- is_x. y"}),
        (["--stop", "-- all_of my_table"], "stop", ["-- all_of my_table"]),
        (["--stop", "-- prints it. Then bye", "b"], "stop", ["-- prints it. Then bye", "b"]),
        (["--stop", "--flag is_x, false"], "stop", ["--flag is_x, false"]),
        (["--stop", "--x_y=a_b c"], "stop", ["--x_y=a_b c"]),
        (["--stop", "--model. Which is_it?"], "stop", ["--model. Which is_it?"]),
        (["--stop", "--hf-overrides.a is_it?"], "stop", ["--hf-overrides.a is_it?"]),
        (["--stop=--flag is_x. y"], "stop", ["--flag is_x. y"]),
    ],
)
def test_words_are_understood(parser: Parser, words: list[str], name: str, value: object) -> None:
    assert vars(parser.parse(words))[name] == value


def test_a_flag_within_a_text_is_not_given(parser: Parser) -> None:
    parsed = parser.parse(["--stop", "--model. Which is it?", "--max_model_len is_it"])
    assert parsed.flags_given == {"stop"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--max-model-length", "8"],
            "unknown argument --max-model-length; did you mean --max",
        ),
        (["--wholly-unlike=8"], "unknown argument --wholly-unlike\n"),
        (["--wholly_unlike.a_b=8"], "unknown argument --wholly-unlike.a_b\n"),
        (["--hf-overide.rope_theta=8"], "; did you mean --hf-overrides?\n"),
        (["-1.5", "-2"], "unknown argument -2\n"),
        (["one", "--two of_them"], "unexpected word '--two of_them'"),
        (["--stop.a_b", "x"], "--stop.a_b: --stop takes no JSON object; write it without"),
        (["--max-model-len.a=1"], "--max-model-len takes no JSON object"),
        (["--no-enable-chunked-prefill.a"], "takes no JSON object"),
        (["--chat-template", "x"], "unknown argument --chat-template\n"),
        (["one", "two"], "unexpected word 'two'\n"),
        (["--max-model", "8"], "unknown argument --max-model; did you mean"),
        (["--enable-chunked-prefill=perhaps"], "expected true or false"),
        (["--hf-overrides.a", "1", "--hf-overrides.a.b", "2"], "an earlier flag"),
        (["--hf-overrides.a", "1", "--hf-overrides.a+", "2"], "an earlier flag"),
        (["--hf-overrides", '{"a": 1}', "--hf-overrides.b", "2"], "as JSON and key by key"),
        (["-ep=perhaps"], "--enable-expert-parallel=perhaps: expected true or false"),
        (["-xyz.a", "1"], "unknown argument -xyz"),
    ],
)
def test_mistakes_are_one_line_with_status_2(
    parser: Parser, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parser.parse(words)
    error = capsys.readouterr().err
    assert error.startswith("quire test: error: ") and error.count("\n") == 1
    assert message in error


def test_a_short_flag_of_the_command_is_its_own() -> None:
    parser = Parser(prog="quire test", description=None)
    parser.add_argument("-n", "--n", type=int)
    parser.add_argument("-ep", "--epochs", type=int)
    EngineArgs.add_cli_args(parser)
    parsed = parser.parse(["-n", "2", "-ep", "3"])
    assert (parsed.n, parsed.epochs) == (2, 3)
    assert parsed.flags_given == {"n", "epochs"}
    assert not hasattr(parsed, "nnodes") and not hasattr(parsed, "enable_expert_parallel")
    assert parser.parse(["-n2"]).n == 2


def test_a_short_flag_is_given_as_its_long_one(parser: Parser) -> None:
    given = {"enable_expert_parallel", "compilation_config", "nnodes"}
    assert parser.parse(["-ep", "-cc.mode=3", "-n2"]).flags_given == given


def test_a_text_in_the_place_of_a_word_gets_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="quire test", description=None)
    parser.add_argument("--prompt")
    with pytest.raises(SystemExit, match="2"):
        parser.parse(["hello"])
    assert "unexpected word 'hello'; give a text as --prompt TEXT" in capsys.readouterr().err


def test_hidden_flags_are_not_suggested(parser: Parser, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(parser.parse(["--swap-space", "4"]), argparse.Namespace)
    with pytest.raises(SystemExit):
        parser.parse(["--swap-spaces", "4"])
    assert "--swap-space " not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("topic", "shown", "hidden"),
    [
        ("scheduling", "--max-num-seqs", "--dtype"),
        ("KV cache", "--block-size", "--scheduling-policy"),
        ("KV cache", "--dtype", "--scheduling-policy"),  # in another group, and mentions it
        ("all", "--dtype", "QUIRE_STEP_TIMEOUT"),
        ("prefix", "--enable-prefix-caching", "--dtype"),
        ("max_model_len", "--max-model-len", "--dtype"),
        ("fcfs", "--scheduling-policy", "--dtype"),
        ("STEP_TIMEOUT", "QUIRE_STEP_TIMEOUT (environment variable)", "--dtype"),
        ("omp-num", "QUIRE_NUM_THREADS or OMP_NUM_THREADS (environment", "--dtype"),
    ],
)
def test_help_about_a_group_or_a_word(
    parser: Parser, capsys: pytest.CaptureFixture[str], topic: str, shown: str, hidden: str
) -> None:
    with pytest.raises(SystemExit, match="0"):
        parser.parse(["--model", "m", f"--help={topic}"])
    out = capsys.readouterr().out
    assert shown in out and hidden not in out


def test_help_about_nothing_known(parser: Parser, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parser.parse(["--help=schedulling"])
    assert "no help about 'schedulling'; did you mean scheduling?" in capsys.readouterr().err
