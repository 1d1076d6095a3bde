"""A unit's process is a small script here: the items say what happens to it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from benchmarks.gpu_parts.records import FAILED, SKIPPED, Records, of_kind, settled_items
from benchmarks.gpu_parts.units import Budget, DoItem, Unit, run_items, run_unit

SCRIPT = """
import os, sys
from contextlib import contextmanager
from pathlib import Path
from benchmarks.gpu_parts.records import Records
from benchmarks.gpu_parts.units import Budget, Unit, run_items

@contextmanager
def opened(unit, records):
    if unit.options.get("dies"):
        os._exit(7)
    def do(item):
        if item == "crash":
            os._exit(9)
        records.add("did", item=item)
    yield do

words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
unit = Unit.from_json(words["--unit"])
records = Records(Path(words["--records"]))
sys.exit(run_items(unit, opened, records, Budget(float(words["--deadline"]))))
"""


def budget(seconds: float = 60.0) -> Budget:
    return Budget(time.time() + seconds)


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "records.jsonl")


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    file = tmp_path / "script.py"
    file.write_text(SCRIPT)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]), prepend=":")
    return str(file)


@contextmanager
def opened(unit: Unit, records: Records) -> Iterator[DoItem]:
    def do(item: str) -> None:
        if item == "raise":
            raise ValueError("why\nand more")
        records.add("did", item=item)

    yield do


def test_an_item_that_raises_is_reported_and_the_next_runs(records: Records) -> None:
    unit = Unit(name="u", kind="k", items=("a", "raise", "b"))
    assert run_items(unit, opened, records, budget()) == 0
    assert [one["item"] for one in of_kind(records.read(), "did")] == ["a", "b"]
    (failed,) = of_kind(records.read(), FAILED)
    assert (failed["item"], failed["error"]) == ("raise", "ValueError: why")


def test_items_for_which_no_time_is_left_are_skipped_aloud(
    records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    unit = Unit(name="u", kind="k", items=("long", "short"), item_s={"long": 100, "short": 1})
    run_items(unit, opened, records, budget(30))
    assert [one["item"] for one in of_kind(records.read(), "did")] == ["short"]
    assert [one["item"] for one in of_kind(records.read(), SKIPPED)] == ["long"]
    assert "SKIPPED u, long: needs about 100 s" in capsys.readouterr().out


def test_a_unit_that_cannot_open_fails_all_its_items(records: Records) -> None:
    @contextmanager
    def broken(unit: Unit, records: Records) -> Iterator[DoItem]:
        raise RuntimeError("no memory")
        yield

    unit = Unit(name="u", kind="k", items=("a", "b"))
    assert run_items(unit, broken, records, budget()) == 0
    assert {one["item"]: one["error"] for one in of_kind(records.read(), FAILED)} == {
        "a": "RuntimeError: no memory",
        "b": "RuntimeError: no memory",
    }


def test_a_crash_costs_one_item(script: str, records: Records) -> None:
    unit = Unit(name="u", kind="k", items=("a", "crash", "b"))
    run_unit(script, unit, records, budget())
    assert [one["item"] for one in of_kind(records.read(), "did")] == ["a", "b"]
    (failed,) = of_kind(records.read(), FAILED)
    assert failed["item"] == "crash" and "status 9" in failed["error"]


def test_a_process_that_dies_before_its_first_item_is_not_tried_forever(
    script: str, records: Records
) -> None:
    unit = Unit(name="u", kind="k", items=("a", "b"), options={"dies": True})
    run_unit(script, unit, records, budget())
    assert settled_items(records.read(), "u") == {"a", "b"}
    assert all("status 7" in one["error"] for one in of_kind(records.read(), FAILED))


def test_a_unit_without_time_starts_no_process(records: Records) -> None:
    unit = Unit(name="u", kind="k", items=("a", "b"), opening_s=50)
    run_unit("/nonexistent", unit, records, budget(10))
    assert settled_items(records.read(), "u") == {"a", "b"}
    assert all("needs about 50 s" in one["reason"] for one in of_kind(records.read(), SKIPPED))


def test_half_a_line_of_a_dead_process_is_no_record(records: Records) -> None:
    records.add("did", item="a")
    with records.path.open("a") as file:
        file.write('{"kind": "di')
    assert [one["item"] for one in records.read()] == ["a"]


def test_a_unit_travels_as_json() -> None:
    unit = Unit(name="u", kind="k", items=("a",), options={"x": [1]}, item_s={"a": 2.0})
    assert Unit.from_json(unit.to_json()) == unit
