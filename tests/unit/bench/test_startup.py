import json
from pathlib import Path

import pytest

from quire.bench.report import percentiles
from quire.cli import main


def test_startup_is_measured_in_a_process_of_its_own(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('a file of the user')\n")
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "results.json"
    words = ["--num-iters-cold", "1", "--num-iters-warm", "0", "--output-json", str(file)]
    assert main(["bench", "startup", "--load-format", "dummy", *words]) == 0
    results = json.loads(file.read_text())
    assert results["cold_startup_times"] == [results["avg_cold_startup_time"]]
    assert 0 < results["avg_cold_startup_time"] < results["avg_cold_first_token_time"]
    assert "avg_warm_startup_time" not in results
    assert "Avg cold startup" in capsys.readouterr().out


def test_a_start_that_fails_fails_the_benchmark(capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--num-iters-cold", "0", "--num-iters-warmup", "0", "--num-iters-warm", "1"]
    assert main(["bench", "startup", "--model", "/nonexistent", *words]) == 1
    error = capfd.readouterr().err
    assert "'/nonexistent' does not exist" in error
    assert "the measured process ended with status 1" in error


def test_the_model_may_stand_behind_two_dashes(capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--num-iters-cold", "0", "--num-iters-warmup", "0", "--num-iters-warm", "1"]
    assert main(["bench", "startup", *words, "--", "/nonexistent"]) == 1
    assert "'/nonexistent' does not exist" in capfd.readouterr().err


def test_the_files_of_the_named_model_are_dropped_before_a_cold_start(
    capfd: pytest.CaptureFixture[str],
) -> None:
    words = ["--num-iters-cold", "1", "--num-iters-warm", "0"]
    assert main(["bench", "startup", "/nonexistent", *words]) == 1
    error = capfd.readouterr().err
    assert "'/nonexistent' does not exist" in error
    assert "the measured process" not in error


def test_percentiles_are_those_of_numpy() -> None:
    assert percentiles([1.0, 2.0, 3.0]) == {
        "10": pytest.approx(1.2),
        "25": 1.5,
        "50": 2.0,
        "75": 2.5,
        "90": pytest.approx(2.8),
        "99": pytest.approx(2.98),
    }
