"""Files at URLs of a server that answers as each test says."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from quire.batch_files import at_urls
from quire.batch_files.at_urls import check_url, fetched, staged, upload
from tests.fakes.sse_server import Script, fake_server, json_script

RECORD = {"custom_id": "a"}
LINE = b"{}"


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "answers"
    path.write_text('{"custom_id": "a"}\n')
    return path


@pytest.mark.parametrize(
    "query",
    [
        "X-Amz-Date={0}&X-Amz-Expires=60&X-Amz-Signature={0}",
        "GoogleAccessId=me&Expires={0}&Signature={0}",
        "sv={0}&st={0}&se={0}&sp=w&sig={0}",
    ],
)
def test_an_address_has_one_file_whatever_its_signature(tmp_path: Path, query: str) -> None:
    path = staged(f"https://host/out.jsonl?{query.format(1)}", tmp_path)
    assert path == staged(f"https://host/out.jsonl?{query.format(22)}", tmp_path)
    assert path.parent == tmp_path and path == staged("https://host/out.jsonl", tmp_path)


def test_other_addresses_have_other_files(tmp_path: Path) -> None:
    urls = ("https://host/put", "https://host/other", "https://host/put?file=a&sig=1")
    assert len({staged(url, tmp_path) for url in (*urls, "https://host/put?file=b&sig=1")}) == 4


@pytest.mark.parametrize(
    "url",
    ["http://host", "https://[::1]:80/a?b=c%20d", "http://h\u00f6st/a", "http://10.0.0.1:8080/"],
)
def test_addresses_that_can_be_reached_are_taken(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http:///x?sig=secret", "names no host"),
        ("http://h:port/x?sig=secret", "Port could not be cast"),
        ("http://h:99999/x?sig=secret", "Port out of range"),
        ("http://[::1/x?sig=secret", "Invalid IPv6"),
        ("http://a..b/x?sig=secret", "label"),
        ("http://me:secret@h/x", "user name"),
        ("https://h/a b?sig=secret", "percent-encoded"),
        ("https://h/a?sig=secret\n", "percent-encoded"),
        ("https://h/\u00fc?sig=secret", "percent-encoded"),
        ("https://h/a?sig=secret\u00fc", "percent-encoded"),
    ],
)
def test_an_address_that_cannot_be_reached_is_told_without_its_secrets(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^--output-file http.*cannot be used: .*{why}") as caught:
        check_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("statuses", [[201], [503, 429, 200]])
def test_a_file_is_sent_until_it_is_taken(
    answers: Path, capsys: pytest.CaptureFixture[str], statuses: list[int]
) -> None:
    num_bytes = str(answers.stat().st_size)
    delays: list[float] = []
    left = list(statuses)
    with fake_server(lambda seen: json_script({}, left.pop(0))) as server:
        upload(answers, f"{server.url}/out?x=1", sleep=delays.append)
        assert [(one.method, one.path, one.body) for one in server.seen] == [
            ("PUT", "/out?x=1", RECORD)
        ] * len(statuses)
        assert server.seen[0].headers["content-length"] == num_bytes
        told = capsys.readouterr().err.splitlines()
        assert told == [
            f"the upload to {server.url}/out failed: HTTP Error {status}: X; trying again in {s} s"
            for status, s in zip(statuses[:-1], (1, 2), strict=False)
        ]
    assert answers.exists() and len(delays) == len(statuses) - 1


@pytest.mark.parametrize(
    ("status", "num_tries", "message"), [(403, 1, "Error 403"), (500, 5, "Error 500")]
)
def test_a_failed_upload_keeps_the_file(
    answers: Path, status: int, num_tries: int, message: str
) -> None:
    with fake_server(lambda seen: json_script({}, status)) as server:
        text = f"file {server.url}/a: the upload failed: .*{message}.* are in {answers}"
        with pytest.raises(ValueError, match=text):
            upload(answers, f"{server.url}/a?signature=1", sleep=lambda seconds: None)
        assert len(server.seen) == num_tries
    assert answers.exists()


def test_a_server_that_is_away_is_asked_again(answers: Path) -> None:
    delays: list[float] = []
    with socket.socket() as held:  # nobody else gets its port, and nobody listens
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/out"
        with pytest.raises(ValueError, match=r"Connection refused.*command uploads them again"):
            upload(answers, url, sleep=delays.append)
    assert delays == [1.0, 2.0, 4.0, 8.0]


def test_a_server_that_takes_nothing_is_given_up(
    answers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at_urls, "_TIMEOUT_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/out"
        with pytest.raises(ValueError, match="the upload failed: timed out; the answers are in"):
            upload(answers, url, sleep=lambda seconds: None)
    assert answers.exists()


def test_an_input_may_be_a_url(tmp_path: Path) -> None:
    assert fetched("some/file", tmp_path) == Path("some/file")
    with fake_server(lambda seen: Script(pieces=[LINE], keeps_alive=False)) as server:
        assert fetched(f"{server.url}/in.jsonl", tmp_path).read_bytes() == LINE
    with pytest.raises(ValueError, match="cannot be read"):
        fetched(server.url, tmp_path)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://me:secret@localhost/x?sig=secret", "http://localhost/x"),
        ("http://localhost:9/a b?sig=secret", "http://localhost:9/a b"),
        ("http://[bad?sig=secret", r"http://\[bad"),
    ],
)
def test_an_input_that_cannot_be_fetched_is_told_without_its_secrets(
    tmp_path: Path, url: str, shown: str
) -> None:
    with pytest.raises(ValueError, match=f"^--input-file {shown} cannot be used: ") as caught:
        fetched(url, tmp_path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (Script(pieces=[LINE], then_close=True), "cannot be read"),
        (
            Script(pieces=[LINE], headers={"Content-Length": "1000"}, has_no_length=True),
            "ended after [0-9]+ of 1000 bytes",
        ),
    ],
)
def test_an_input_that_breaks_off_is_refused(tmp_path: Path, script: Script, message: str) -> None:
    with (
        fake_server(lambda seen: script) as server,
        pytest.raises(ValueError, match=message),
    ):
        fetched(f"{server.url}/in.jsonl", tmp_path)
