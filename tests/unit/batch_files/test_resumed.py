"""The command, given twice: what the second run asks, and what the output holds then."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from quire.batch_files import output
from quire.cli import main
from quire.env import AS_VLLM
from tests.fakes.sse_server import FakeServer, Script, Seen, fake_server, json_script

NAMES = ("a", "b", "c", "d")
BROKEN, REFUSED = 501, 404  # both are recorded at once


class Server:
    """Answers with the status that a request's prompt has at the moment."""

    def __init__(self) -> None:
        self.statuses: dict[str, int] = {}

    def __call__(self, seen: Seen) -> Script:
        return json_script({}, self.statuses.get(seen.body["prompt"], 200))


def words_for(folder: Path, server: FakeServer) -> list[str]:
    lines = (
        {"custom_id": name, "method": "POST", "url": "/v1/completions", "body": {"prompt": name}}
        for name in NAMES
    )
    source = folder / "in"
    source.write_text("".join(json.dumps(one) + "\n" for one in lines))
    files = ["-i", str(source), "-o", str(folder / "out")]
    return ["run-batch", *files, "--url", server.url, "--model", "m", "--max-inflight", "1"]


def recorded(folder: Path) -> list[tuple[str, int]]:
    records = map(json.loads, (folder / "out").read_text().splitlines())
    return [(one["custom_id"], one["response"]["status_code"]) for one in records]


@pytest.mark.parametrize(
    ("flags", "order"), [([], ["a", "c", "d", "b"]), (["--ordered"], ["a", "b", "c", "d"])]
)
def test_only_what_the_server_failed_on_is_asked_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], order: list[str]
) -> None:
    answer = Server()
    with fake_server(answer) as server:
        words = [*words_for(tmp_path, server), *flags]
        answer.statuses = {"b": BROKEN, "c": REFUSED}
        assert main(words) == 3
        assert recorded(tmp_path) == [("a", 200), ("b", BROKEN), ("c", REFUSED), ("d", 200)]
        answer.statuses, server.seen = {}, []
        assert main(words) == 3
        assert [one.body["prompt"] for one in server.seen] == ["b"]
        assert "1 lines that the server had failed on are asked again" in capsys.readouterr().err
        wanted = {"a": 200, "b": 200, "c": REFUSED, "d": 200}
        assert recorded(tmp_path) == [(name, wanted[name]) for name in order]
        server.seen = []
        assert main(words) == 3
        assert server.seen == []
        assert "all 4 lines have an answer already" in capsys.readouterr().err


def test_a_line_whose_second_answer_is_good_is_no_failure(tmp_path: Path) -> None:
    answer = Server()
    with fake_server(answer) as server:
        words = words_for(tmp_path, server)
        answer.statuses = dict.fromkeys(NAMES, BROKEN)
        assert main(words) == 3
        answer.statuses = {}
        assert main(words) == 0
    assert recorded(tmp_path) == [(name, 200) for name in NAMES]


def test_answers_are_put_in_order_by_a_run_that_has_nothing_to_ask(tmp_path: Path) -> None:
    with fake_server(Server()) as server:
        words = words_for(tmp_path, server)
        assert main(words) == 0
        lines = (tmp_path / "out").read_text().splitlines(keepends=True)
        (tmp_path / "out").write_text("".join(reversed(lines)))
        assert main([*words, "--ordered"]) == 0
    assert recorded(tmp_path) == [(name, 200) for name in NAMES]


def test_under_the_name_vllm_answers_stand_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(AS_VLLM.names[0], "a folder")
    answer = Server()
    with fake_server(answer) as server:
        words = words_for(tmp_path, server)
        answer.statuses = {"b": BROKEN}
        assert main(words) == 3
        answer.statuses = {}
        assert main([*words, "--no-ordered"]) == 0
        assert [name for name, _ in recorded(tmp_path)] == ["a", "c", "d", "b"]
        assert main(words) == 0
    assert [name for name, _ in recorded(tmp_path)] == [*NAMES]


def write_input(folder: Path, **prompts: str) -> None:
    """The lines of `words_for`, some with other prompts."""
    asked = {name: prompts.get(name, name) for name in NAMES}
    lines = (
        {"custom_id": name, "method": "POST", "url": "/v1/completions", "body": {"prompt": prompt}}
        for name, prompt in asked.items()
    )
    (folder / "in").write_text("".join(json.dumps(one) + "\n" for one in lines))


def test_an_answer_to_another_prompt_is_not_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fake_server(Server()) as server:
        words = words_for(tmp_path, server)
        assert main(words) == 0
        before = (tmp_path / "out").read_bytes()
        write_input(tmp_path, c="another")
        server.seen = []
        assert main(words) == 1
        wanted = f"line 3 of the input, or its model, differs from the one answered in {tmp_path}"
        assert wanted in capsys.readouterr().err
        assert server.seen == [] and (tmp_path / "out").read_bytes() == before
        write_input(tmp_path)
        assert main([*words, "--model", "m2"]) == 1
        assert "line 1 of the input, or its model, differs" in capsys.readouterr().err
        assert main([*words, "--model", "m2", "--overwrite"]) == 0
        assert {one.body["model"] for one in server.seen} == {"m2"}


def test_a_line_that_failed_and_was_mended_is_asked_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = Server()
    with fake_server(answer) as server:
        words = words_for(tmp_path, server)
        answer.statuses = {"b": 400, "c": 400}
        assert main(words) == 3
        write_input(tmp_path, c="mended")
        server.seen = []
        assert main(words) == 3
        assert [one.body["prompt"] for one in server.seen] == ["mended"]
    assert "1 lines that have changed since they failed are asked" in capsys.readouterr().err
    assert recorded(tmp_path) == [("a", 200), ("b", 400), ("d", 200), ("c", 200)]


def test_records_of_an_earlier_version_are_kept(tmp_path: Path) -> None:
    with fake_server(Server()) as server:
        words = words_for(tmp_path, server)
        assert main(words) == 0
        records = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
        bare = ({**one, "id": "batch_req_" + one["id"].split("_")[-1]} for one in records)
        (tmp_path / "out").write_text("".join(json.dumps(one) + "\n" for one in bare))
        write_input(tmp_path, a="another")
        server.seen = []
        assert main(words) == 0 and server.seen == []


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_ends_the_run_and_leaves_its_lines_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    refusal = json_script({"error": {"message": "no such key"}}, status)
    answers: list[Script] = [json_script({}), refusal]

    def answer(seen: Seen) -> Script:
        return answers.pop(0) if answers else json_script({})

    with fake_server(answer) as server:
        words = words_for(tmp_path, server)
        assert main(words) == 1
        assert f"the server answered {status}: no such key" in capsys.readouterr().err
        assert recorded(tmp_path) == [("a", 200)]
        assert main(words) == 0
    assert recorded(tmp_path) == [(name, 200) for name in NAMES]


def test_a_refused_key_that_was_recorded_is_asked_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [
        {"id": "batch_req_1", "custom_id": name, "response": {"status_code": 401}, "error": None}
        for name in NAMES
    ]
    (tmp_path / "out").write_text("".join(json.dumps(one) + "\n" for one in records))
    with fake_server(Server()) as server:
        assert main(words_for(tmp_path, server)) == 0
    assert "4 lines that the server had refused the key for are" in capsys.readouterr().err
    assert recorded(tmp_path) == [(name, 200) for name in NAMES]


class Listing:
    """A server that finds nothing, and answers this for its models."""

    def __init__(self, models: Script) -> None:
        self._models = models

    def __call__(self, seen: Seen) -> Script:
        return self._models if seen.method == "GET" else json_script({"detail": "Not Found"}, 404)


def listed(*names: str) -> Script:
    return json_script({"data": [{"id": name} for name in names]})


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (listed("other", "more"), "the server has no model 'm'; it lists other, more"),
        (json_script({}, 404), "has neither /v1/completions nor /v1/models (status 404); check --"),
    ],
)
def test_a_server_that_is_not_the_one_that_was_meant_ends_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], models: Script, message: str
) -> None:
    with fake_server(Listing(models)) as server:
        assert main(words_for(tmp_path, server)) == 1
        assert message in capsys.readouterr().err
        assert [one.method for one in server.seen] == ["POST", "GET"]
    assert recorded(tmp_path) == []


@pytest.mark.parametrize("models", [listed("m"), listed(), json_script({}, 403)])
def test_lines_that_are_not_found_elsewhere_are_recorded(tmp_path: Path, models: Script) -> None:
    with fake_server(Listing(models)) as server:
        assert main(words_for(tmp_path, server)) == 3
        assert [one.method for one in server.seen].count("GET") == 1
    assert recorded(tmp_path) == [(name, 404) for name in NAMES]


def test_a_key_that_may_not_list_models_gets_the_servers_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fake_server(Listing(json_script({"error": {"message": "who?"}}, 401))) as server:
        words = words_for(tmp_path, server)
        del words[words.index("--model") : words.index("--max-inflight")]
        assert main(words) == 1
    error = capsys.readouterr().err
    assert "the server answered 401: who?" in error and "--model" not in error


def pipe_in(folder: Path) -> str:
    os.mkfifo(folder / "pipe")
    return str(folder / "pipe")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/dev/null", "--output-file /dev/null is not a regular file"),
        ("PIPE", "pipe is not a regular file"),
        ("-", "'-' cannot stand for standard input or output"),
        ("FOLDER", "is a folder; give a file"),
        ("FOLDER/no/out", "no/out: there is no folder"),
        ("FOLDER/" + 300 * "x", "cannot be opened: File name too long"),
    ],
)
def test_an_output_that_is_no_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    path = pipe_in(tmp_path) if name == "PIPE" else name.replace("FOLDER", str(tmp_path))
    with fake_server(Server()) as server:
        assert main([*words_for(tmp_path, server), "-o", path]) == 1
        assert server.seen == []
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and "Errno" not in error


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("PIPE", "pipe is not a regular file, but it is read more than once"),
        ("-", "'-' cannot stand for standard input or output"),
        (300 * "x", "cannot be read: File name too long"),
    ],
)
def test_an_input_that_is_no_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    source = pipe_in(tmp_path) if name == "PIPE" else name
    files = ["-i", source, "-o", str(tmp_path / "out")]
    assert main(["run-batch", *files, "--url", "http://localhost:1"]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and "Errno" not in error


def test_a_full_disk_is_named_and_the_same_command_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        """A file on a disk with room for one line and a part of the next."""

        def __init__(self, file: Any) -> None:
            self._file, self._left = file, 200

        def write(self, data: bytes) -> int:
            if not self._left:
                raise OSError(28, "No space left on device")
            size: int = self._file.write(data[: self._left])
            self._left -= size
            return size

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def __enter__(self) -> None: ...

        def __exit__(self, *reason: object) -> None:
            self._file.close()

    with fake_server(Server()) as server:
        words = words_for(tmp_path, server)
        opened = output._opened
        with monkeypatch.context() as patch:
            patch.setattr(output, "_opened", lambda path: Full(opened(path)))
            assert main(words) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert f"--output-file {tmp_path / 'out'} cannot be written: No space left" in error
        assert "the same command goes on where it stopped" in error
        assert (tmp_path / "out").stat().st_size == 200
        assert main(words) == 0
    assert recorded(tmp_path) == [(name, 200) for name in NAMES]


@pytest.mark.parametrize("mended", [None, "c"])
def test_a_line_that_was_not_a_request_may_be_mended_or_deleted(
    tmp_path: Path, mended: str | None
) -> None:
    with fake_server(Server()) as server:
        words = words_for(tmp_path, server)
        good = (tmp_path / "in").read_text().splitlines()
        (tmp_path / "in").write_text("\n".join([*good[:2], good[2][:-1], good[3]]))
        assert main(words) == 3
        rest = [*good[:2], *([good[2]] if mended else []), good[3]]
        (tmp_path / "in").write_text("\n".join(rest))
        server.seen = []
        assert main([*words, "--ordered"]) == 0
        assert [one.body["prompt"] for one in server.seen] == ([mended] if mended else [])
    assert recorded(tmp_path) == [(json.loads(one)["custom_id"], 200) for one in rest]
