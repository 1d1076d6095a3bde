from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quire.batch_files.lines import BadLine, BatchInput, BatchRequest, parse_line

GOOD = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "x"}}


def line(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def write(folder: Path, *lines: bytes) -> Path:
    path = folder / "in.jsonl"
    path.write_bytes(b"\n".join(lines))
    return path


def test_a_good_line() -> None:
    parsed = parse_line(3, line())
    assert parsed == BatchRequest(
        number=3, custom_id="a", path="/v1/completions", body={"prompt": "x"}
    )


@pytest.mark.parametrize(
    ("data", "key", "message"),
    [
        (b"{", 7, "line 7 is not JSON"),
        (b'"\xff"', 7, "line 7 is not JSON"),
        (b"[" * 100_000, 7, "line 7 is not JSON"),
        (line()[:-1] + b', "url": "/v1/x"}', 7, "line 7 has the key 'url' 2 times in one object"),
        (line()[:-2] + b', "prompt": "y"}}', 7, "line 7 has the key 'prompt' 2 times"),
        (b"[1]", 7, "line 7 has no custom_id"),
        (line(custom_id=5), 7, "line 7 has no custom_id"),
        (line(method="GET"), "a", "line 7: the method must be POST, not 'GET'"),
        (line(url="https://host/v1/completions"), "a", "the url must be a path such as"),
        (line(url="/metrics"), "a", "the url must be a path such as"),
        (line(url="/v1/x HTTP/1.1\r\nX: y"), "a", "the url must be a path such as"),
        (line(url="/v1/\u65e5"), "a", "the url must be a path such as"),
        (line(url="/v1/\ud800"), "a", "the url must be a path such as"),
        (line(max_tokens=2), "a", "line 7: a line has no key 'max_tokens', only custom_id,"),
        (line(**{"k" * 200: 1}), "a", f"no key '{'k' * 80}', only"),
        (line(body="x"), "a", "the body must be a JSON object"),
        (line(body={"stream": True}), "a", "leave out stream"),
    ],
)
def test_a_bad_line_says_what_is_wrong(data: bytes, key: object, message: str) -> None:
    parsed = parse_line(7, data)
    assert isinstance(parsed, BadLine)
    assert parsed.key == key
    assert message in parsed.message


def test_the_keys_of_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, line(), b"", b"oops", line(custom_id="b"))
    assert list(BatchInput.check(path).keys) == ["a", 3, "b"]


def test_a_custom_id_that_comes_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, line(), line(custom_id="b"), line(url="/v1/responses"))
    with pytest.raises(ValueError, match=r"line 3 of in\.jsonl has the custom_id 'a' of line 1"):
        BatchInput.check(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nope\.jsonl is not a file"):
        BatchInput.check(tmp_path / "nope.jsonl")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no request"):
        BatchInput.check(write(tmp_path, b"", b" "))
