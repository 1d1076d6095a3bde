"""The argument parser that programs make for themselves."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from quire.args import EngineArgs
from quire.as_vllm.stand_ins import FlexibleArgumentParser

FILE = """
model: a-model
max_model_len: 8k
num-prompts: 3
served_model_name: [x, y]
hf_overrides: {rope_theta: 5}
enforce-eager: true
verbose: true
quiet: false
nothing:
"""


def parser(**options: object) -> argparse.ArgumentParser:
    made = FlexibleArgumentParser(**options)  # type: ignore[arg-type]
    made.add_argument("--num-prompts", type=int, default=1)
    made.add_argument("--verbose", action="store_true")
    made.add_argument("--quiet", action="store_true")
    return EngineArgs.add_cli_args(made)


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "flags.yaml").write_text(FILE, encoding="utf-8")
    return str(tmp_path / "flags.yaml")


def test_options_of_argparse_are_heeded(capsys: pytest.CaptureFixture[str]) -> None:
    base = argparse.ArgumentParser(add_help=False)
    base.add_argument("--base", default="of the parent")
    made = FlexibleArgumentParser("prog", parents=[base], add_help=False, prefix_chars="-+")
    made.add_argument("+h", dest="height")
    assert vars(made.parse_args(["+h", "3"])) == {"base": "of the parent", "height": "3"}
    with pytest.raises(SystemExit):
        made.parse_args(["--help"])
    assert "unrecognized arguments: --help" in capsys.readouterr().err
    told = FlexibleArgumentParser(prog="tool", description="what it does", epilog="bye")
    assert told.format_help().startswith("usage: tool [-h]")
    assert "what it does" in told.format_help() and told.format_help().endswith("bye\n")
    with pytest.raises(TypeError, match="add_hlp"):
        FlexibleArgumentParser(add_hlp=False)


def test_flags_may_be_abbreviated_unless_that_is_off() -> None:
    assert parser().parse_args(["--num-p", "4"]).num_prompts == 4
    parsed, unknown = parser(allow_abbrev=False).parse_known_args(["--num-p", "4"])
    assert (parsed.num_prompts, unknown) == (1, ["--num-p", "4"])


def test_a_programs_own_flag_takes_texts_and_keys() -> None:
    made = parser()
    made.add_argument("--extra-config")
    assert made.parse_args(["--extra_conf=a_b c"]).extra_config == "a_b c"
    assert made.parse_args(["--extra-config.a_b", "1"]).extra_config == '{"a_b": 1}'


def test_underscores_are_dashes_among_unknown_flags_too() -> None:
    made = parser()
    made.add_argument("--of_the_program")
    words = ["--num_prompts=5", "--max_model_len", "8k", "--of_the_program", "x", "--who", "7"]
    parsed, unknown = made.parse_known_args(words)
    assert (parsed.num_prompts, parsed.max_model_len, parsed.of_the_program) == (5, 8000, "x")
    assert unknown == ["--who", "7"]


def test_flags_may_stand_in_a_file(config: str) -> None:
    parsed = parser().parse_args(["--config", config])
    args = EngineArgs.from_cli_args(parsed)
    assert (args.model, args.max_model_len, args.served_model_name) == ("a-model", 8000, ["x", "y"])
    assert (args.hf_overrides, args.enforce_eager) == ({"rope_theta": 5}, True)
    assert (parsed.num_prompts, parsed.verbose, parsed.quiet) == (3, True, False)


def test_flags_that_are_given_win_over_the_file(config: str) -> None:
    words = ["--no-enforce-eager", f"--config={config}", "--served_model_name", "z"]
    parsed, unknown = parser().parse_known_args([*words, "--num_prompts", "9"])
    assert (parsed.num_prompts, parsed.served_model_name) == (9, ["z"])
    assert (parsed.enforce_eager, parsed.model, unknown) == (False, "a-model", [])


def test_the_file_may_be_of_a_subcommand(tmp_path: Path) -> None:
    made = FlexibleArgumentParser(prog="tool")
    run = made.add_subparsers(dest="command").add_parser("run")
    run.add_argument("--num-prompts", type=int)
    run.add_argument("--fast", action=argparse.BooleanOptionalAction)
    run.add_argument("--quiet", action="store_true")
    run.add_argument("--ports", nargs="+", type=int)
    text = "num_prompts: 3\nfast: false\nquiet: false\nports: [1, 2]\n"
    (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
    parsed = made.parse_args(["run", "--config", str(tmp_path / "run.yaml"), "--num_prompts", "5"])
    expected = {"num_prompts": 5, "fast": False, "quiet": False, "ports": [1, 2]}
    assert vars(parsed) == {"command": "run", **expected}


def test_a_programs_own_config_flag_is_its_own() -> None:
    made = FlexibleArgumentParser(prog="tool")
    made.add_argument("--config")
    assert made.parse_args(["--config", "my.json"]).config == "my.json"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config"], "--config needs the name of a YAML file"),
        (["--config", "no.yaml"], "--config no.yaml cannot be read: No such file"),
        (["--config", "a", "--config", "b"], "--config is given 2 times"),
    ],
)
def test_what_is_wrong_with_the_file_is_said(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(words)
    assert message in capsys.readouterr().err


def test_a_key_of_the_file_that_nobody_knows_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.yaml").write_text("num_promts: 3\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        parser().parse_args(["--config", str(tmp_path / "a.yaml")])
    assert "--num-promts" in capsys.readouterr().err
