from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quire.batch_files.output import LINE_ERROR, OutputFile

KNOWN = {"a", "b", "c", 4}


def record(custom_id: str, status: int = 200) -> dict[str, Any]:
    response = {"status_code": status, "request_id": "r", "body": {}}
    return {"id": "batch_req_1", "custom_id": custom_id, "response": response, "error": None}


BAD = {"id": "batch_req_2", "custom_id": None, "response": None, "error": {"code": "x", "line": 4}}


def test_what_was_written_is_done_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with OutputFile(path, KNOWN) as output:
        assert output.done == set()
        for one in (record("a"), BAD, record("b", status=400)):
            output.write(one)
    with OutputFile(path, KNOWN) as output:
        assert output.done == {"a", "b", 4}
        assert output.num_failed == 2
        output.write(record("c"))
    ids = [json.loads(line)["custom_id"] for line in path.read_text().splitlines()]
    assert ids == ["a", None, "b", "c"]


def custom_ids(path: Path) -> list[str]:
    return [json.loads(line)["custom_id"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("end", ["", '{"id": "batch_req_torn'])
def test_what_the_server_failed_on_is_open_again(tmp_path: Path, end: str) -> None:
    path = tmp_path / "out"
    with OutputFile(path, KNOWN) as output:
        for one in (record("a", status=500), record("b", status=400), record("c", status=504)):
            output.write(one)
        output.write(BAD)
    path.write_text(path.read_text() + end)
    with OutputFile(path, KNOWN) as output:
        assert output.done == {"b", 4}
        assert (output.num_failed, output.num_dropped) == (2, 2)
        assert custom_ids(path) == ["b", None]
        output.write(record("c"))
    assert custom_ids(path) == ["b", None, "c"]
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("custom_id", [None, "gone"])
def test_an_error_of_a_line_that_is_not_there_any_more_is_taken_out(
    tmp_path: Path, custom_id: str | None
) -> None:
    path = tmp_path / "out"
    error = {"code": LINE_ERROR, "message": "line 7 is not JSON", "line": 7}
    bad = {"id": "batch_req_7", "custom_id": custom_id, "response": None, "error": error}
    with OutputFile(path, {*KNOWN, 7, "gone"}) as output:
        for one in (record("a"), bad, record("b")):
            output.write(one)
    with OutputFile(path, KNOWN) as output:
        assert (output.done, output.num_failed) == ({"a", "b"}, 0)
        output.write(record("c"))
    assert custom_ids(path) == ["a", "b", "c"]


def test_a_run_that_ends_while_it_takes_lines_out_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    with OutputFile(path, KNOWN) as output:
        output.write(record("a", status=502))
        output.write(record("b"))
    before = path.read_bytes()

    def stop(*names: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", stop)
        OutputFile(path, KNOWN)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["out"]
    (tmp_path / ".out.new").write_text("what a kill leaves, and longer than all the answers" * 9)
    OutputFile(path, KNOWN).close()
    assert custom_ids(path) == ["b"]


def test_an_output_that_is_a_link_stays_one(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text(json.dumps(record("a", status=500)) + "\n")
    real.chmod(0o640)
    link.symlink_to(real)
    with OutputFile(link, KNOWN) as output:
        output.write(record("b"))
    assert link.is_symlink() and custom_ids(real) == ["b"]
    assert real.stat().st_mode & 0o777 == 0o640


def test_answers_can_be_put_in_order(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with OutputFile(path, KNOWN) as output:
        for one in (record("c"), BAD, record("a")):
            output.write(one)
        output.put_in_order(["a", "b", "c", 4])
        assert custom_ids(path) == ["a", "c", None]
        output.write(record("b"))
    assert custom_ids(path) == ["a", "c", None, "b"]


def test_half_of_a_surrogate_pair_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with OutputFile(path, {"\ud800"}) as output:
        output.write(record("\ud800"))
    with OutputFile(path, {"\ud800"}) as output:
        assert output.done == {"\ud800"}


def test_a_torn_last_line_is_cut_off_wherever_it_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "out"
    first, second = (json.dumps(record(name)).encode() + b"\n" for name in "ab")
    for end in range(len(second)):
        path.write_bytes(first + second[:end])
        with OutputFile(path, KNOWN) as output:
            assert output.done == {"a"}
            output.write(record("b"))
        assert path.read_bytes() == first + second


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"precious notes\nmore\n", "line 1 of .* is not an answer of a batch"),
        (b"precious notes\n", "line 1 of .* is not an answer of a batch"),
        (b"precious notes", "line 1 of .* is not an answer of a batch"),
        (b'{"custom_id": null, "response": null, "error": null}\n', "is not an answer of a batch"),
        (b'{"custom_id": null, "response": null, "error": {}}\n', "is not an answer of a batch"),
        (b'{"custom_id": [], "response": null, "error": null}\n', "is not an answer of a batch"),
        (b'{"custom_id": "a", "response": {}, "error": null}\n', "is not an answer of a batch"),
        (
            b'{"custom_id": "a", "response": {"status_code": "500"}, "error": null}\n',
            "is not an answer of a batch",
        ),
        (b'{"custom_id": "a"}\n{"x": 1}\n', "line 1 of .* is not an answer of a batch"),
        (b"[" * 100_000 + b"\nmore\n", "line 1 of .* is not an answer of a batch"),
        (json.dumps(record("z")).encode() + b"\n", "answers 'z', which is not in the input"),
    ],
)
def test_a_file_of_something_else_is_left_alone(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "out"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        OutputFile(path, KNOWN)
    assert path.read_bytes() == content
    with OutputFile(path, KNOWN, overwrite=True) as output:
        assert output.done == set()
    assert path.read_bytes() == b""


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    with (
        OutputFile(tmp_path / "out", KNOWN),
        pytest.raises(ValueError, match="another run is writing"),
    ):
        OutputFile(tmp_path / "out", KNOWN, overwrite=True)


def test_nor_a_file_from_which_lines_were_taken_out(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text(json.dumps(record("a", status=500)) + "\n")
    with OutputFile(path, KNOWN), pytest.raises(ValueError, match="another run is writing"):
        OutputFile(path, KNOWN)


def test_a_file_that_is_replaced_while_it_is_opened_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "out", tmp_path / "other"
    path.write_bytes(b"")
    other.write_bytes(b"")
    monkeypatch.setattr("fcntl.flock", lambda file, operation: other.replace(path))
    with pytest.raises(ValueError, match="another run is writing"):
        OutputFile(path, KNOWN)
