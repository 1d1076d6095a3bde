"""The argument parser that programs make for themselves, loggers, and the platform."""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from quire.args import EngineArgs
from quire.as_vllm import stand_ins
from quire.as_vllm.stand_ins import FlexibleArgumentParser, current_platform, init_logger

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


def test_a_flag_may_be_deprecated(capsys: pytest.CaptureFixture[str]) -> None:
    made = FlexibleArgumentParser("prog")
    made.add_argument("--old", deprecated=True)
    made.add_argument("--new", deprecated=False)
    group = made.add_argument_group("others", "of a group")
    group.add_argument("--older-one", "-o", deprecated=True, action="store_true")
    assert made.parse_args(["--new", "x"]).new == "x"
    assert capsys.readouterr().err == ""
    parsed = made.parse_args(["--old=1", "--older_one", "-o", "--old", "2"])
    assert (parsed.old, parsed.older_one) == ("2", True)
    assert capsys.readouterr().err.splitlines() == [
        "prog: warning: option '--old' is deprecated",
        "prog: warning: option '--older-one' is deprecated",
        "prog: warning: option '-o' is deprecated",
    ]
    assert "others:\n  of a group" in made.format_help()


def test_a_flag_of_an_exclusive_group_may_be_deprecated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = FlexibleArgumentParser("prog")
    choice = made.add_mutually_exclusive_group()
    choice.add_argument("--old", deprecated=True)
    choice.add_argument("--new")
    inner = made.add_argument_group("others").add_mutually_exclusive_group(required=True)
    inner.add_argument("--older", deprecated=True, action="store_true")
    inner.add_argument("--newer", action="store_true")
    assert made.parse_args(["--older", "--old", "1"]).old == "1"
    assert capsys.readouterr().err.splitlines() == [
        "prog: warning: option '--older' is deprecated",
        "prog: warning: option '--old' is deprecated",
    ]
    for words, message in (
        (["--old", "1", "--new", "2", "--newer"], "not allowed with argument --old"),
        (["--new", "2"], "one of the arguments --older --newer is required"),
    ):
        with pytest.raises(SystemExit):
            made.parse_args(words)
        assert message in capsys.readouterr().err
    assert "others:\n  --older" in made.format_help()


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


def test_loggers_can_say_a_thing_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(2):
        logger = init_logger("mine.once")
        assert logger is logging.getLogger("mine.once")
        for scope in ("process", "global"):
            logger.info_once("loaded %s", "a", scope=scope)  # type: ignore[attr-defined]
        logger.info_once("loaded %s", "b")  # type: ignore[attr-defined]
        logger.warning_once("loaded %s", "a", scope="local")  # type: ignore[attr-defined]
        logger.debug_once("hidden")  # type: ignore[attr-defined]
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert said == [("INFO", "loaded a"), ("INFO", "loaded b"), ("WARNING", "loaded a")]
    assert {record.filename for record in caplog.records} == {Path(__file__).name}


_LOGS = """
import logging, sys
from quire.as_vllm.stand_ins import init_logger
if "own" in sys.argv:
    logging.basicConfig(format="own %(message)s")
init_logger("vllm.mine").info("one")
init_logger("vllm").info("two")
init_logger("mine").info("no")
logging.getLogger("vllm.other").debug("no")
"""


@pytest.mark.parametrize(
    ("words", "form", "lines"),
    [
        ([], "text", ["[vllm.mine] one", "[vllm] two"]),
        ([], "json", ["one", "two"]),
        (["own"], "text", ["own one", "own two"]),
    ],
)
def test_what_is_logged_under_the_name_of_vllm_comes_as_quires_own(
    words: list[str], form: str, lines: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOGS, *words],
        env={**os.environ, "QUIRE_LOG_FORMAT": form},
        capture_output=True,
        text=True,
        check=True,
    )
    said = done.stderr.splitlines()
    if form == "json":
        assert [json.loads(line)["message"] for line in said] == lines
    else:
        assert [line[-len(end) :] for line, end in zip(said, lines, strict=True)] == lines


def test_a_cpu_has_no_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stand_ins, "default_device", lambda: "cpu")
    assert current_platform.get_device_capability() is None
    assert not current_platform.has_device_capability(0)
    assert not current_platform.is_device_capability((9, 0))
    names = (current_platform.device_name, current_platform.dispatch_key)
    assert (*names, current_platform.dist_backend) == ("cpu", "CPU", "gloo")
    assert current_platform.device_control_env_var == "CPU_VISIBLE_MEMORY_NODES"
    assert current_platform.get_device_name() and current_platform.device_count() >= 1


def test_a_gpu_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [
        SimpleNamespace(name="Big", major=9, minor=0, total_memory=2**37),
        SimpleNamespace(name="Small", major=8, minor=6, total_memory=2**35),
    ]
    monkeypatch.setattr(stand_ins, "default_device", lambda: "cuda")
    monkeypatch.setattr(stand_ins, "_gpu", gpus.__getitem__)
    found = current_platform.get_device_capability(1)
    assert found == (8, 6) and found is not None
    assert (found.major, found.as_version_str(), found.to_int()) == (8, "8.6", 86)
    assert current_platform.has_device_capability((8, 9)) and current_platform.is_cuda_alike()
    assert current_platform.has_device_capability(86, 1)
    assert not current_platform.has_device_capability(89, device_id=1)
    assert current_platform.is_device_capability(90)
    assert not current_platform.is_device_capability((8, 0), 1)
    assert (current_platform.dispatch_key, current_platform.dist_backend) == ("CUDA", "nccl")
    assert current_platform.device_control_env_var == "CUDA_VISIBLE_DEVICES"
    assert current_platform.get_device_name(1) == "Small"
    assert current_platform.get_device_total_memory(1) == 2**35


def test_the_platform_seeds_and_names_what_it_lacks() -> None:
    drawn = []
    for _ in range(2):
        current_platform.seed_everything(5)
        current_platform.seed_everything()
        drawn.append((random.random(), torch.rand(1).item()))
    assert drawn[0] == drawn[1]
    assert not current_platform.is_out_of_tree()
    current_platform.empty_cache()
    current_platform.synchronize()
    assert not hasattr(current_platform, "_hidden")
    assert type(copy.copy(current_platform)) is type(current_platform)
    with pytest.raises(AttributeError, match="no get_device_nam; did you mean get_device_name"):
        current_platform.get_device_nam  # noqa: B018
