import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.gpu_parts import report
from benchmarks.gpu_parts.report import Row, number, speed_rows, start_rows
from benchmarks.gpu_parts.targets import DENSE, SMALL, TARGETS, Target, target_of

from quire.bench.standard_workloads import standard_workload


def speed(model: str, workload: str, value: float, ceiling: float) -> dict[str, Any]:
    return {"kind": "speed", "model": model, "workload": workload, "value": value,
            "ceiling": ceiling}  # fmt: skip


def test_a_rate_is_better_when_it_is_higher_and_a_time_when_it_is_lower() -> None:
    rate = Row(model="m", workload="w", unit="tok/s", value=120, ceiling=240, peer=100, goal=150)
    assert (rate.of_ceiling, rate.to_peer, rate.met) == (0.5, 1.2, False)
    time = Row(model="m", workload="w", unit="s", value=2.0, ceiling=1.0, peer=3.0, goal=2.0)
    assert (time.of_ceiling, time.to_peer, time.met) == (0.5, 1.5, True)
    assert Row(model="m", workload="w", unit="s", value=2.0).met is None


def test_every_planned_row_is_there_with_why_it_has_no_value() -> None:
    records = [
        speed(SMALL, "single", 2000.0, 3700.0),
        {"kind": "failed", "unit": f"speed on {SMALL}", "item": "nano", "error": "x"},
        {"kind": "skipped", "unit": f"speed on {DENSE}", "item": "nano", "reason": "y"},
    ]
    planned = [(SMALL, "single"), (SMALL, "nano"), (DENSE, "nano"), (DENSE, "long")]
    rows = speed_rows(records, planned)
    assert [(row.model, row.workload) for row in rows] == planned
    assert [row.note for row in rows] == ["", "failed", "skipped", "not run"]
    assert rows[0].met is True and rows[0].goal == 1500
    table = report.text_table(rows).splitlines()
    assert len(table) == 5 and "54%" in table[1] and "3.28x" in table[1] and "yes" in table[1]
    assert report.trouble_lines(records) == [
        f"failed: speed on {SMALL}, nano: x",
        f"skipped: speed on {DENSE}, nano: y",
    ]


def test_starts_are_rows_with_their_own_goals() -> None:
    records = [
        {"kind": "startup", "model": DENSE, "how": how, "first_token": seconds}
        for how, seconds in (("cold", 17.0), ("warm", 13.0))
    ]
    cold, warm = start_rows(records)
    assert (cold.goal, cold.peer, cold.met) == (18, 53, True)
    assert (warm.goal, warm.peer, warm.met) == (12, None, False)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (0.943, "0.943"), (9.36, "9.36"), (245.4, "245"), (1633.2, "1,633"),
     (25_849, "25,800"), (163_329, "163,000")],
)  # fmt: skip
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_all_figures_go_to_files(tmp_path: Path) -> None:
    host = {name: {"median": 140.0, "mean": 150.0, "p99": 300.0} for name in ("host", "wait")}
    records: list[dict[str, Any]] = [
        speed(SMALL, "decode256", 110_000.0, 163_000.0),
        {"kind": "host", "model": SMALL, "workload": "decode256", "us": host},
        {"kind": "experts", "model": "m", "workload": "decode1", "mean": 0.0625, "low": 0.06,
         "high": 0.07, "if_even": 0.0625},
        {"kind": "check", "what": "kernels", "passed": False, "counts": {"failed": 1}},
    ]  # fmt: skip
    rows = speed_rows(records, [(SMALL, "decode256")])
    files = report.write_results(tmp_path, {"device": "H"}, records, rows)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["machine"] == {"device": "H"} and results["records"] == records
    assert results["table"][0]["met"] == "yes"
    text = (tmp_path / "results.md").read_text()
    assert "| qwen3-0.6b | decode256 | tok/s | 110,000 | 163,000 | 67% |" in text
    assert "host 140.0 us a step" in text and "6.2% of the experts" in text
    assert "FAIL: kernels" in text
    assert all(file.exists() for file in files)


def test_units_of_rows() -> None:
    workload = standard_workload("prefill")
    assert target_of(SMALL, "prefill").value(workload, 2.0) == 64 * 4096 / 2
    assert target_of(DENSE, "long").value(standard_workload("long"), 9.0) == 9.0
    single = Target(model="m", workload="single", peer=512)
    assert single.value(standard_workload("single"), 0.5) == 512
    assert single.peer_s(standard_workload("single")) == 0.5
    assert single.reaches(512, 512) and not single.reaches(511, 512)
    assert len({(one.model, one.workload) for one in TARGETS}) == len(TARGETS)
