import re
from pathlib import Path
from typing import Any

import pytest
from benchmarks.gpu_parts.trace import STEP_MARK, kind_of, short_name, summarise

import quire


def event(cat: str, name: str, ts: float, dur: float, correlation: int = 0) -> dict[str, Any]:
    args = {"correlation": correlation} if correlation else {}
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "args": args}


def step(number: int, kernels: list[tuple[str, float, float]]) -> list[dict[str, Any]]:
    """A graph is launched at 1000 * number, long before its kernels run."""
    start = 1000.0 * number
    return [
        event("user_annotation", STEP_MARK, start, 20),
        event("cuda_runtime", "cudaGraphLaunch", start + 5, 4, number),
        *(event("kernel", name, start + 300 + at, dur, number) for name, at, dur in kernels),
    ]


def trace(num_steps: int = 5) -> dict[str, Any]:
    events = [{"ph": "M", "name": "process_name"}]
    for number in range(1, num_steps + 1):
        events += step(number, [("attention", 0, 400), ("gemm", 500, 100), ("gemm", 600, 390)])
    return {"traceEvents": events}


def test_gaps_and_times_of_steps() -> None:
    found = summarise(trace())
    assert found.num_steps == 3  # the first and the last may be cut
    assert (found.period_us, found.busy_us, found.idle_in_step_us) == (1000, 890, 100)
    assert found.gap_us == found.gap_mean_us == 10
    assert found.num_kernels == 3
    assert found.launches == {"cudaGraphLaunch": 1.0}
    assert found.launch_us == {"cudaGraphLaunch": 4.0}
    assert [(one.name, one.us, one.count) for one in found.kernels] == [
        ("gemm", 490, 2),
        ("attention", 400, 1),
    ]
    assert found.kinds == {"products": 490, "attention": 400}
    assert any("gap between steps 10.0" in line for line in found.lines())


def test_kernels_that_overlap_count_once_as_busy() -> None:
    events = [
        one
        for number in range(1, 6)
        for one in step(number, [("a", 0, 400), ("b", 100, 500), ("c", 200, 100)])
    ]
    found = summarise({"traceEvents": events})
    assert (found.busy_us, found.idle_in_step_us, found.gap_us) == (600, 0, 400)


def test_work_from_outside_a_submission_belongs_to_no_step() -> None:
    stray = [
        event("cuda_runtime", "cudaLaunchKernel", 2500, 4, 99),
        event("kernel", "stray", 3290, 5, 99),
        event("kernel", "unknown", 3295, 5, 98),
    ]
    data = trace()
    data["traceEvents"] += stray
    assert summarise(data) == summarise(trace())


def test_the_longest_kernels_only() -> None:
    assert [one.name for one in summarise(trace(), top=1).kernels] == ["gemm"]


@pytest.mark.parametrize("num_steps", [0, 1, 3])
def test_a_trace_without_steps_says_so(num_steps: int) -> None:
    with pytest.raises(ValueError, match=f"has {num_steps} steps"):
        summarise(trace(num_steps))


def test_names_are_short() -> None:
    name = (
        "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>, "
        "std::array<char*, 3ul> >(int, at::native::CUDAFunctor_add<float>)"
    )
    assert short_name(name).startswith("vectorized_elementwise_kernel")
    assert short_name("nvjet_tst_64x8_64x16_2x1_v_bz_TNT") == "nvjet_tst_64x8_64x16_2x1_v_bz_TNT"
    assert len(short_name("x" * 200)) == 64


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("_paged_attention", "attention"),
        ("nvjet_tst_64x8", "products"),
        ("_rms_norm", "norms"),
        ("_norm_rope_write_kv", "positions and KV"),
        ("_grouped_expert_gemm", "experts"),
        ("_argmax", "sampling"),
        ("vectorized_gather_kernel", "rows"),
        ("_softmax_top_k_kernel", "experts"),
        ("_down_lines_kernel", "experts"),
        ("_gated_gemv_kernel", "products"),
        ("best_column", "products"),
        ("_finish_kernel", "sampling"),
        ("Kernel2", "other"),
    ],
)
def test_kinds_of_kernels(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_every_kernel_of_ours_has_a_kind() -> None:
    files = (Path(quire.__file__).parent / "kernels" / "triton").glob("*.py")
    names = {
        name for file in files for name in re.findall(r"def (_\w+_kernel)\(", file.read_text())
    }
    assert len(names) > 20
    assert not [name for name in names if kind_of(name) == "other"]
