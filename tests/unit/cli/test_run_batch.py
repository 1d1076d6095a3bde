"""`quire run-batch`: its flags, the formats of its answers, and an output that is a URL."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from quire.cli import main, run_batch
from quire.cli.parser import Parser
from quire.cli.run_batch import SOME_FAILED
from quire.server.args import ServerArgs
from tests.fakes.sse_server import FakeServer, Script, Seen, fake_server, json_script

DUMMY = ("--load-format", "dummy", "--dtype", "float32", "--device", "cpu")
CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def input_of(folder: Path, *bodies: dict[str, Any], url: str = CHAT) -> str:
    lines = (
        {"custom_id": str(number), "method": "POST", "url": url, "body": body}
        for number, body in enumerate(bodies)
    )
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return str(path)


def responses(path: Path) -> list[dict[str, Any]]:
    records = map(json.loads, path.read_text().splitlines())
    return [one["response"] for one in sorted(records, key=lambda one: one["custom_id"])]


def test_flags_of_answers_are_those_of_the_server() -> None:
    parser = Parser(prog="quire run-batch", description=None)
    run_batch.add_arguments(parser)
    parsed = parser.parse(["-i", "in", "-o", "out"])
    assert run_batch._server_args(parsed) == ServerArgs()
    words = (
        "--reasoning-parser qwen3 --tool-call-parser hermes --enable-auto-tool-choice "
        "--tool-parser-plugin p.py --chat-template-content-format openai "
        "--exclude-tools-when-tool-choice-none --return-tokens-as-token-ids "
        "--trust-request-chat-template --default-chat-template-kwargs.a 1 --response-role bot "
        "--chat-template chatml --strict-fields off"
    )
    parsed = parser.parse(["-i", "in", "-o", "out", *words.split()])
    assert run_batch._server_args(parsed) == ServerArgs(
        reasoning_parser="qwen3",
        tool_call_parser="hermes",
        enable_auto_tool_choice=True,
        tool_parser_plugin="p.py",
        chat_template_content_format="openai",
        exclude_tools_when_tool_choice_none=True,
        return_tokens_as_token_ids=True,
        trust_request_chat_template=True,
        default_chat_template_kwargs={"a": 1},
        response_role="bot",
        chat_template="chatml",
        strict_fields="off",
    )


def test_thoughts_and_tools_of_a_local_model_have_their_parsers(tmp_path: Path) -> None:
    source = input_of(tmp_path, {**HELLO, "thinking_token_budget": 2}, {**HELLO, "tools": [TOOL]})
    output = tmp_path / "out.jsonl"
    words = ["run-batch", "-i", source, "-o", str(output), *DUMMY]
    words += ["--chat-template", "{{ tools | tojson }}{{ messages[0].content }}"]
    assert main(words) == 3
    assert [one["status_code"] for one in responses(output)] == [400, 400]
    formats = "--reasoning-parser qwen3 --tool-call-parser hermes --enable-auto-tool-choice"
    assert main([*words, *formats.split(), "--overwrite"]) == 0
    assert "reasoning_content" in responses(output)[0]["body"]["choices"][0]["message"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--reasoning-parser", "qwen33"], "'qwen33'"),
        (["--tool-call-parser", "hermess"], "'hermess'"),
    ],
)
def test_an_unknown_parser_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    files = ["-i", "/nonexistent", "-o", str(tmp_path / "out")]
    assert main(["run-batch", *files, *words]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (["--strict-fields", "warn"], "--strict-fields configures answers"),
        (["--strict-fields", "error"], "--strict-fields configures answers"),
        (["--response-role", "bot"], "--response-role configures answers"),
        (["--reasoning-parser", "qwen3"], "--reasoning-parser configures answers"),
        (["--no-enable-auto-tool-choice"], "--enable-auto-tool-choice configures answers"),
        (["--chat-template", "chatml"], "--chat-template configures answers"),
        (["--dtype", "float32"], "--dtype configures an engine"),
    ],
)
def test_flags_that_a_server_would_not_see_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], flag: str
) -> None:
    files = ["-i", input_of(tmp_path, HELLO), "-o", str(tmp_path / "out")]
    assert main(["run-batch", *files, "--url", "http://localhost:1", *words]) == 1
    assert f"{flag}, but --url uses a server" in capsys.readouterr().err
    (tmp_path / "c.yaml").write_text("response-role: bot\n")
    files += ["--url", "http://localhost:1", "--config", str(tmp_path / "c.yaml")]
    assert main(["run-batch", *files]) == 1
    assert "--response-role configures answers" in capsys.readouterr().err


def test_the_address_of_metrics_in_vllm_is_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--url", "localhost", "--max-model-len", "512"]
    assert main(["run-batch", "-i", "in", "-o", "out", *words]) == 1
    error = capsys.readouterr().err
    assert "--url localhost is not the URL of a server" in error and "vLLM's --url" in error


class Store:
    """Answers requests, and stores what it gets by PUT once it is not ``full``."""

    def __init__(self) -> None:
        self.stored: list[Any] = []
        self.is_full = False
        self.bad_prompt: str | None = None

    def __call__(self, seen: Seen) -> Script:
        if seen.method == "PUT" and self.is_full:
            return json_script({}, 403)
        if seen.method == "PUT":
            self.stored.append(seen.body)
        elif seen.body["prompt"] == self.bad_prompt:
            return json_script({}, 500)
        return json_script({"answer": "good"})

    def words(
        self, server: FakeServer, folder: Path, *more: str, prompts: Sequence[str] = ("x",)
    ) -> list[str]:
        source = input_of(folder, *({"prompt": one} for one in prompts), url="/v1/completions")
        files = ["-i", source, "-o", f"{server.url}/out.jsonl?signed=1"]
        return ["run-batch", *files, "--url", server.url, "--model", "m", *more]


def test_answers_for_a_url_are_uploaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    store = Store()
    with fake_server(store) as server:
        assert main(store.words(server, tmp_path)) == 0
    (record,) = store.stored
    assert record["response"]["body"] == {"answer": "good"}
    assert list((tmp_path / "here").iterdir()) == []


def test_after_a_failed_upload_the_same_command_only_uploads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "answers"
    folder.mkdir()
    store = Store()
    store.is_full = True
    with fake_server(store) as server:
        words = store.words(server, tmp_path, "--output-tmp-dir", str(folder))
        assert main(words) == 1
        assert f"the answers are in {folder}/quire_batch_" in capsys.readouterr().err
        assert len(list(folder.iterdir())) == 1
        store.is_full, server.seen = False, []
        assert main(words) == 0
        assert [one.method for one in server.seen] == ["PUT"]
    assert store.stored[0]["custom_id"] == "0" and list(folder.iterdir()) == []


def test_after_an_upload_with_errors_only_their_lines_are_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_batch, "upload", lambda path, url: sizes.append(len(responses(path))))
    sizes: list[int] = []
    folder = tmp_path / "answers"
    folder.mkdir()
    store = Store()
    store.bad_prompt = "y"
    with fake_server(store) as server:
        more = ("--output-tmp-dir", str(folder))
        words = store.words(server, tmp_path, *more, prompts=["x", "y"])
        assert main(words) == SOME_FAILED
        (left,) = folder.iterdir()
        assert f"some of them errors, are uploaded and stay in {left}" in capsys.readouterr().err
        store.bad_prompt, server.seen = None, []
        assert main(words) == 0
        assert [one.body["prompt"] for one in server.seen] == ["y"]
    assert sizes == [2, 2] and list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "http:///out"], "--output-file http:///out cannot be used: it names no host"),
        (["-o", "http://h/out", "--output-tmp-dir", "/no/folder"], "--output-tmp-dir /no/folder"),
    ],
)
def test_a_wrong_place_for_uploads_is_told_before_anything_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    with fake_server(Store()) as server:
        source = f"{server.url}/in.jsonl"
        assert main(["run-batch", "-i", source, "--url", server.url, "--model", "m", *words]) == 1
        assert server.seen == []
    assert message in capsys.readouterr().err


def test_a_folder_for_uploads_without_one_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fake_server(Store()) as server:
        source = input_of(tmp_path, {"prompt": "x"}, url="/v1/completions")
        files = ["-i", source, "-o", str(tmp_path / "out"), "--output-tmp-dir", str(tmp_path)]
        assert main(["run-batch", *files, "--url", server.url, "--model", "m"]) == 0
    assert "--output-tmp-dir has no effect" in capsys.readouterr().err
