"""Uploads of the file of answers, to a server that answers as each test says."""

from __future__ import annotations

from pathlib import Path

import pytest

from quire.batch_files.upload import staged, upload
from tests.fakes.sse_server import fake_server, json_script

RECORD = {"custom_id": "a"}


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "answers"
    path.write_text('{"custom_id": "a"}\n')
    return path


def test_an_address_has_one_file_whatever_its_signature(tmp_path: Path) -> None:
    path = staged("https://host/out.jsonl?signature=1", tmp_path)
    assert path == staged("https://host/out.jsonl?signature=2", tmp_path)
    assert path.parent == tmp_path and path != staged("https://host/other", tmp_path)


@pytest.mark.parametrize("statuses", [[201], [503, 429, 200]])
def test_a_file_is_gone_once_it_is_uploaded(answers: Path, statuses: list[int]) -> None:
    num_bytes = str(answers.stat().st_size)
    delays: list[float] = []
    left = list(statuses)
    with fake_server(lambda seen: json_script({}, left.pop(0))) as server:
        upload(answers, f"{server.url}/out?x=1", sleep=delays.append)
        assert [(one.method, one.path, one.body) for one in server.seen] == [
            ("PUT", "/out?x=1", RECORD)
        ] * len(statuses)
        assert server.seen[0].headers["content-length"] == num_bytes
    assert not answers.exists() and len(delays) == len(statuses) - 1


@pytest.mark.parametrize(
    ("status", "num_tries", "message"), [(403, 1, "Error 403"), (500, 5, "Error 500")]
)
def test_a_failed_upload_keeps_the_file(
    answers: Path, status: int, num_tries: int, message: str
) -> None:
    with fake_server(lambda seen: json_script({}, status)) as server:
        with pytest.raises(ValueError, match=f"the upload failed: .*{message}.* are in {answers}"):
            upload(answers, server.url, sleep=lambda seconds: None)
        assert len(server.seen) == num_tries
    assert answers.exists()


def test_a_server_that_is_away_is_asked_again(answers: Path) -> None:
    with fake_server(lambda seen: json_script({})) as server:
        url = server.url
    delays: list[float] = []
    with pytest.raises(ValueError, match=r"Connection refused.*same command uploads them again"):
        upload(answers, url, sleep=delays.append)
    assert delays == [1.0, 2.0, 4.0, 8.0]
