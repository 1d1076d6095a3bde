"""Flags of `quire serve` out of a file and the environment."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import pytest

from quire.cli import chat, generate, main, plan, run_batch, serve
from quire.cli.commands import CommandModule
from quire.cli.engine_flags import engine_args
from quire.cli.parser import Parser


def parse(*words: str) -> argparse.Namespace:
    parser = Parser(prog="quire serve", description=None)
    serve.add_arguments(parser)
    return parser.parse(words)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "serve.yaml"
    path.write_text(
        "model: a-model\n"
        "port: 9000\n"
        "max_model_len: 8k\n"
        "served-model-name: [one, two]\n"
        "allowed-origins: ['*']\n"
        "hf-overrides: {rope: {type: yarn}}\n"
        "enable-prefix-caching: false\n"
        "restart-engine: true\n"
        "revision:\n"
    )
    return path


def test_a_file_gives_flags_of_every_kind(config: Path) -> None:
    parsed = parse("--config", str(config))
    server, engine = serve.server_args(parsed), engine_args(parsed)
    assert (engine.model, server.port, engine.max_model_len) == ("a-model", 9000, 8000)
    assert engine.served_model_name == ["one", "two"]
    assert server.allowed_origins == ["*"]
    assert engine.hf_overrides == {"rope": {"type": "yarn"}}
    assert (engine.enable_prefix_caching, server.restart_engine) == (False, True)
    assert engine.revision is None


def test_the_command_line_wins_over_environment_and_file(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUIRE_PORT", "9001")
    monkeypatch.setenv("QUIRE_MAX_MODEL_LEN", "4k")
    parsed = parse(
        f"--config={config}", "--port", "9002", "--served-model-name", "three",
        "--hf-overrides.a", "1",
    )  # fmt: skip
    assert (parsed.port, parsed.max_model_len) == (9002, 4000)
    assert parsed.served_model_name == ["three"]
    assert parsed.hf_overrides == {"a": 1}


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("QUIRE_HOST", "0.0.0.0", "host", "0.0.0.0"),
        ("QUIRE_RESTART_ENGINE", "1", "restart_engine", True),
        ("QUIRE_ENABLE_PREFIX_CACHING", "off", "enable_prefix_caching", False),
        ("QUIRE_SERVED_MODEL_NAME", "one, two", "served_model_name", ["one", "two"]),
        ("QUIRE_SERVED_MODEL_NAME", '["one", "a b"]', "served_model_name", ["one", "a b"]),
        ("QUIRE_ALLOWED_ORIGINS", '["http://a"]', "allowed_origins", ["http://a"]),
        ("QUIRE_HF_OVERRIDES", '{"a": 1}', "hf_overrides", {"a": 1}),
        ("QUIRE_SWAP_SPACE", "8", "swap_space", 8),
        ("QUIRE_CHAT_TEMPLATE", "--odd", "chat_template", "--odd"),
    ],
)
def test_every_flag_is_a_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, name: str, value: object
) -> None:
    monkeypatch.setenv(variable, text)
    assert vars(parse())[name] == value


def test_the_file_may_come_from_the_environment(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUIRE_CONFIG", str(config))
    assert parse().port == 9000


def test_of_several_files_the_last_wins(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUIRE_MAX_NUM_SEQS", "7")
    other = tmp_path / "other.yaml"
    other.write_text("port: 9001\nserved-model-name: [three]\nmax-num-seqs: 5\n")
    parsed = parse("--config", str(config), f"--config={other}", "--host", "x")
    assert (parsed.model, parsed.port) == ("a-model", 9001)
    assert (parsed.served_model_name, parsed.max_num_seqs) == (["three"], 7)
    assert parse("--config", str(other), "--config", str(config)).port == 9000


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("api-key: 0123456", "api_key", ["0123456"]),
        ("api-key: [0123456, 1_000, '007']", "api_key", ["0123456", "1_000", "007"]),
        ("served-model-name: 1.10", "served_model_name", ["1.10"]),
        ("served-model-name:\n- 1.10\n- 2024-01-01\n", "served_model_name", ["1.10", "2024-01-01"]),
        ("revision: 2024-01-01", "revision", "2024-01-01"),
        ("revision: 1e5", "revision", "1e5"),
        ("revision: 12:30", "revision", "12:30"),
        ("response-role: yes", "response_role", "yes"),
        ("strict-fields: off", "strict_fields", "off"),
        ("chat-template: |\n  a\n  b\n", "chat_template", "a\nb\n"),
        ("revision: &r 0010\nhost: *r\n", "host", "0010"),
        ("<<: {revision: 0010}\n", "revision", "0010"),
        ("revision: ~", "revision", None),
        ("revision: null", "revision", None),
        ("restart-engine: yes", "restart_engine", True),
        ("enable-prefix-caching: off", "enable_prefix_caching", False),
        ("port: 0x1F40", "port", 8000),
        ("hf-overrides: {a: 1.10, b: 2024-01-01}", "hf_overrides", {"a": 1.1, "b": "2024-01-01"}),
        ("hf_overrides.rope_theta: 1e6", "hf_overrides", {"rope_theta": 1e6}),
        (
            "hf-overrides.a_b: x\nhf_overrides.a-b: 1\nhf-overrides.c.d_e: ~",
            "hf_overrides",
            {"a_b": "x", "a-b": 1, "c": {"d_e": None}},
        ),
        (
            "default-chat-template-kwargs.enable_thinking: false",
            "default_chat_template_kwargs",
            {"enable_thinking": False},
        ),
    ],
)
def test_a_text_in_a_file_is_what_was_written(
    tmp_path: Path, text: str, name: str, value: object
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    assert vars(parse("--config", str(path)))[name] == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot: 9000", "unknown argument --prot; did you mean --port"),
        ("port: high", "argument --port: invalid int value: 'high'"),
        ("port: [1, 2]", "argument --port: invalid int value"),
        ("restart-engine: perhaps", "--restart-engine=perhaps: expected true or false"),
        ("config: other.yaml", "cannot name another --config file"),
        ("- a\n- b", "must hold lines like"),
        ("a: [", "is not YAML"),
        ("port: 1\nhost: x\nport: 2", "line 3 has 'port' again, after 'port' in line 1"),
        (
            "max_model_len: 8k\nmax-model-len: 4k",
            "line 2 has 'max-model-len' again, after 'max_model_len' in line 1; keep one of them",
        ),
        ("hf-overrides.a_b: 1\nhf_overrides.a_b: 2", "line 2 has 'hf_overrides.a_b' again"),
        ("port.a_b: 1", "--port takes no JSON object; write it without .a_b"),
        ("hf-overrides:\n  a: 1\n  a: 2", "line 3 has 'a' again, after 'a' in line 2"),
        ("hf-overrides: {b: [{c: 1, c: 2}]}", "line 1 has 'c' again"),
    ],
)
def test_mistakes_in_a_file_name_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(SystemExit, match="2"):
        parse("--config", str(path))
    error = capsys.readouterr().err
    assert "c.yaml" in error and message in error and error.count("\n") == 1


def test_keys_of_different_mappings_and_merges_are_not_the_same(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "hf-overrides:\n  a: &a {x: 1, x_y: 1, x-y: 2}\n  b: {<<: *a, x: 2}\n  c: *a\n  x: 1\n"
    )
    a = {"x": 1, "x_y": 1, "x-y": 2}
    assert parse("--config", str(path)).hf_overrides == {"a": a, "b": {**a, "x": 2}, "c": a, "x": 1}


def test_a_missing_file_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse("--config", "/nonexistent.yaml")
    assert "--config /nonexistent.yaml cannot be read: No such file" in capsys.readouterr().err


def test_a_wrong_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable, text in (("QUIRE_MAX_NUM_SEQS", "many"), ("QUIRE_SERVED_MODEL_NAME", "['a']")):
        monkeypatch.setenv(variable, text)
        with pytest.raises(SystemExit, match="2"):
            parse()
        monkeypatch.delenv(variable)
        error = capsys.readouterr().err
        assert f"environment variable {variable}=" in error and error.count("\n") == 1


@pytest.mark.parametrize("variable", ["QUIRE_PORT", "VLLM_PORT"])
def test_an_address_of_kubernetes_is_recognised(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "tcp://10.0.0.1:8000")
    with pytest.raises(ValueError, match=f"{variable}='tcp://10.0.0.1:8000' is not a port: Kub"):
        parse()
    assert parse("--port", "8001").port == 8001, "a flag makes it harmless"


def test_variables_that_nobody_reads_are_noted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("QUIRE_MAX_MODEL_LENGTH", "8k")
    monkeypatch.setenv("QUIRE_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("QUIRE_PORT_8000_TCP_ADDR", "10.0.0.1")
    monkeypatch.setenv("VLLM_PORT", "8000")
    with caplog.at_level(logging.WARNING, logger="quire"):
        assert parse().port == 8000
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0].startswith("VLLM_PORT=8000 has no effect")
    assert messages[1].startswith("unknown environment variable QUIRE_MAX_MODEL_LENGTH; did you")
    assert len(messages) == 2


def test_a_model_given_as_a_word_wins_over_the_file(config: Path) -> None:
    parsed = parse("other-model", "--config", str(config))
    assert engine_args(parsed).model == "other-model"


def parse_for(command: CommandModule, *words: str) -> argparse.Namespace:
    parser = Parser(prog="quire command", description=None)
    command.add_arguments(parser)
    return parser.parse(words)


@pytest.mark.parametrize("command", [generate, plan])
def test_settings_of_the_engine_count_for_every_command(
    command: CommandModule,
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("QUIRE_MAX_MODEL_LEN", "512")
    monkeypatch.setenv("QUIRE_PORT", "tcp://10.0.0.1:8000")  # the server's
    monkeypatch.setenv("QUIRE_JSON", "1")  # no flag of the engine
    with caplog.at_level(logging.WARNING, logger="quire"):
        engine = engine_args(parsed := parse_for(command, "--config", str(config)))
    assert (engine.model, engine.max_model_len) == ("a-model", 512)
    assert engine.enable_prefix_caching is False and parsed.json is False
    messages = [record.getMessage() for record in caplog.records]
    only = "ignored, since this command has no --port, --allowed-origins, --restart-engine"
    assert messages[0] == f"{config}: {only}"
    assert messages[1].startswith("unknown environment variable QUIRE_JSON")
    assert len(messages) == 2


def test_flags_that_the_server_has_too_have_a_variable(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("QUIRE_CHAT_TEMPLATE", "/nonexistent")
    monkeypatch.setenv("QUIRE_STRICT_FIELDS", "off")
    monkeypatch.setenv("QUIRE_REASONING_PARSER", "qwen3")
    monkeypatch.setenv("QUIRE_PORT", "tcp://10.0.0.1:8000")  # the server's
    monkeypatch.setenv("QUIRE_MAX_LOG_LEN", "8")  # the server's
    with caplog.at_level(logging.WARNING, logger="quire"):
        batch = parse_for(run_batch, "-i", "in", "-o", "out")
    assert (batch.chat_template, batch.strict_fields) == ("/nonexistent", "off")
    assert batch.reasoning_parser == "qwen3"
    assert not hasattr(batch, "port") and not hasattr(batch, "max_log_len")
    assert caplog.records == []
    monkeypatch.delenv("QUIRE_REASONING_PARSER")
    assert main(["chat", "-q", "x"]) == 1
    assert "'/nonexistent'" in capsys.readouterr().err


def test_prompts_of_a_file_are_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("prompt: [a_b, '--x_y z', '-- prints it. Then bye']\n")
    parsed = parse_for(generate, f"--config={tmp_path / 'c.yaml'}")
    assert parsed.prompt == ["a_b", "--x_y z", "-- prints it. Then bye"]


def test_a_key_of_what_only_the_server_has_is_noted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "c.yaml").write_text("default-chat-template-kwargs.enable_thinking: false\n")
    with caplog.at_level(logging.WARNING, logger="quire"):
        parse_for(generate, f"--config={tmp_path / 'c.yaml'}")
    only = "this command has no --default-chat-template-kwargs.enable_thinking"
    assert only in caplog.records[0].getMessage()


def test_a_wrong_variable_is_no_plan(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QUIRE_ENABLE_PREFIX_CACHING", "maybe")
    with pytest.raises(SystemExit, match="2"):
        main(["plan"])
    assert "environment variable QUIRE_ENABLE_PREFIX_CACHING='maybe'" in capsys.readouterr().err


def test_a_flag_that_must_be_given_may_stand_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QUIRE_MAX_MODEL_LEN", "512")
    (tmp_path / "c.yaml").write_text("input-file: in\noutput-file: out\n")
    parsed = parse_for(run_batch, f"--config={tmp_path / 'c.yaml'}", "-o", "other")
    assert (parsed.input_file, parsed.output_file) == ("in", "other")
    with pytest.raises(SystemExit, match="2"):
        parse_for(run_batch, "-o", "other")
    assert "arguments are required: -i/--input-file" in capsys.readouterr().err


def test_the_environment_describes_no_server_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QUIRE_MAX_MODEL_LEN", "512")
    monkeypatch.setenv("QUIRE_MODEL", "a-model")
    assert main(["chat", "--url", "http://localhost:1", "-q", "x"]) == 1
    assert "cannot be reached" in capsys.readouterr().err


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A file that names a server."""
    path = tmp_path / "chat.yaml"
    path.write_text("url: http://localhost:1\n")
    return path


def test_nor_one_that_a_file_names(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QUIRE_MAX_MODEL_LEN", "512")
    monkeypatch.setenv("QUIRE_MODEL", "a-model")
    assert main(["chat", "--config", str(elsewhere), "-q", "x"]) == 1
    assert "http://localhost:1 cannot be reached" in capsys.readouterr().err
    parsed = parse_for(run_batch, f"--config={elsewhere}", "-i", "in", "-o", "out")
    assert parsed.max_model_len is None and parsed.model != "a-model"
    monkeypatch.setenv("QUIRE_CONFIG", str(elsewhere))
    parsed = parse_for(chat)
    assert (parsed.url, parsed.max_model_len) == ("http://localhost:1", None)


def test_flags_of_an_engine_beside_the_url_of_a_file_are_refused(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = "--dtype configures an engine, but --url uses a server, which has its own"
    assert main(["chat", "--config", str(elsewhere), "-q", "x", "--dtype", "float32"]) == 1
    assert refusal in capsys.readouterr().err
    elsewhere.write_text(f"{elsewhere.read_text()}dtype: float32\n")
    assert main(["chat", "--config", str(elsewhere), "-q", "x"]) == 1
    assert refusal in capsys.readouterr().err


@pytest.mark.parametrize("words", [["/here"], ["--model", "/here"], ["/here", "--model", "/here"]])
def test_a_model_of_the_command_line_wins_over_the_environment(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUIRE_MODEL", "/there")
    assert engine_args(parse_for(generate, *words)).model == "/here"
