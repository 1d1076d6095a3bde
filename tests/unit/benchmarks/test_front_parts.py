from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from benchmarks.front_parts import instant_core
from benchmarks.front_parts.cpu_time import children_of, cpu_seconds
from benchmarks.front_parts.instant_core import FIRST_TOKEN_ID, VARIABLE, InstantCore, StepTimes
from benchmarks.front_parts.report import COLUMNS, Cost, table

from quire.request import EngineRequest, FinishReason, RowSampling
from quire.step_output import CompletionDelta
from tests.fakes.configs import fake_config

PROGRAM = Path(__file__).parents[3] / "benchmarks" / "front.py"
AT_ONCE = StepTimes(step_ms=0, prompt_ms=0)


def request(name: str, max_tokens: int = 3, **fields: Any) -> EngineRequest:
    defaults: dict[str, Any] = {"prompt_token_ids": [5] * 16, "sampling": RowSampling()}
    return EngineRequest(request_id=name, max_tokens=max_tokens, **{**defaults, **fields})


def run_to_end(core: InstantCore) -> list[list[CompletionDelta]]:
    steps = []
    while core.has_unfinished:
        steps.append(core.step())
    return steps


def test_the_program_measures_all_requests() -> None:
    flags = ["--num-prompts", "8", "--input-len", "16", "--output-len", "8", "--repetitions", "1"]
    done = subprocess.run([sys.executable, str(PROGRAM), *flags], stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0
    head, _, *rows = (
        [cell.strip() for cell in line.split("|")] for line in done.stdout.split("\n")
    )
    assert head[2:-1] == list(COLUMNS)
    assert [row[1] for row in rows if len(row) > 1] == ["1", "median"]
    for row in rows[:2]:
        figures = dict(zip(COLUMNS, row[2:-1], strict=True))
        assert (figures["requests"], figures["tokens"]) == ("8", "64")
        assert all(float(figures[name].replace(",", "")) >= 0 for name in COLUMNS)
        assert float(figures["s"]) > 0


def cost(front_cpu_s: float) -> Cost:
    return Cost(
        seconds=2.0,
        num_requests=100,
        num_tokens=10_000,
        mean_ttft_ms=1234.0,
        front_cpu_s=front_cpu_s,
        core_cpu_s=0.5,
    )


def test_the_table_has_every_repetition_and_medians_of_each_column() -> None:
    rows = table([cost(1.0), cost(4.0), cost(2.0)]).splitlines()
    assert len(rows) == 2 + 3 + 1
    assert rows[3] == "| 2 | 100 | 10,000 | 2.00 | 5,000 | 1,234 | 4.00 | 0.50 | 400.0 | 40.00 |"
    assert rows[-1].startswith("| median |") and rows[-1].endswith(
        "| 2.00 | 0.50 | 200.0 | 20.00 |"
    )


def test_every_request_gets_its_tokens_and_an_end() -> None:
    core = InstantCore(fake_config(), AT_ONCE)
    for index in range(300):
        fields = {"prompt_token_ids": [5], "arrival_time": 7.0}
        core.add_request(request(f"{index}", max_tokens=1 + index % 4, **fields))
    steps = run_to_end(core)
    deltas = [delta for step in steps for delta in step]
    assert max(map(len, steps)) == core.facts.max_num_seqs == 256
    assert all(FIRST_TOKEN_ID <= token < 1000 for one in deltas for token in one.new_token_ids)
    counts = Counter(one.request_id for one in deltas)
    assert counts == {f"{index}": 1 + index % 4 for index in range(300)}
    ends = [one for one in deltas if one.finish_reason is FinishReason.LENGTH]
    assert len(ends) == len({one.request_id for one in ends}) == 300
    timings = [one.timing for one in ends if one.timing is not None]
    assert len(timings) == 300 and {one.arrival_time for one in timings} == {7.0}
    assert all(one.first_token_time <= one.finished_time for one in timings)


def test_as_many_prompts_begin_in_a_step_as_fit() -> None:
    core = InstantCore(fake_config(), AT_ONCE)  # of at most 2048 tokens
    for index in range(3):
        core.add_request(request(f"{index}", max_tokens=9, prompt_token_ids=[5] * 1000))
    core.add_request(request("long", max_tokens=9, prompt_token_ids=[5] * 5000))
    assert [len(core.step()) for _ in range(4)] == [0, 2, 3, 4]


class Clock:
    """In the place of `time`: it passes only while somebody sleeps."""

    now = 100.0

    def time(self) -> float:
        return self.now

    perf_counter = time

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_steps_last_as_long_as_they_are_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(instant_core, "time", clock)
    core = InstantCore(fake_config(), StepTimes(step_ms=20, prompt_ms=5))
    for index in range(4):
        core.add_request(request(f"{index}", max_tokens=2))
    began = clock.now
    assert core.step() == [] and core.seconds_to_spare() == pytest.approx(0.020 + 4 * 0.005)
    assert [len(step) for step in run_to_end(core)] == [4, 4]
    assert clock.now - began == pytest.approx(0.040 + 0.020)
    assert core.seconds_to_spare() < 0, "a core without rows has no step under way"


def test_an_aborted_request_says_no_more_than_it_is_asked_to() -> None:
    core = InstantCore(fake_config(), AT_ONCE)
    for name in ("kept", "gone", "told", "found"):
        core.add_request(request(name))
    core.step()
    core.add_request(request("told waiting"))
    core.abort(["gone", "unknown"])
    core.finish("found", 0)
    core.abort(["told", "told waiting"], keeps_tokens=True)
    deltas = [delta for step in run_to_end(core) for delta in step]
    ends = {one.request_id: one.finish_reason for one in deltas if one.finish_reason is not None}
    abort = FinishReason.ABORT
    assert ends == {"kept": FinishReason.LENGTH, "told": abort, "told waiting": abort}
    assert Counter(one.request_id for one in deltas)["kept"] == 3
    with pytest.raises(ValueError, match="n=2"):
        core.add_request(request("two", n=2))


def test_times_of_steps_reach_cores_of_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")  # so that it is as before in the end
    times = StepTimes(step_ms=4.3, prompt_ms=1.1)
    times.tell()
    assert StepTimes.told() == times
    assert times.seconds(num_prompts=2) == pytest.approx(0.0065)


@pytest.mark.parametrize("busy", [True, False])
def test_cpu_time_is_what_a_process_has_computed(busy: bool) -> None:
    work = "while time.process_time() < 0.2: pass" if busy else "time.sleep(0.2)"
    program = f"import time\n{work}"
    with subprocess.Popen([sys.executable, "-c", program]) as child:
        assert child.pid in children_of(os.getpid())
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it stays in /proc
        assert (cpu_seconds(child.pid) >= 0.15) is busy
