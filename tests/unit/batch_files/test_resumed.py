"""The command, given twice: what the second run asks, and what the output holds then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quire.cli import main
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
