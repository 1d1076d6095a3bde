"""Which layers and steps are attended for in one launch, and what it is given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from quire.attention import one_launch as module
from quire.attention.backend import AttentionPlan, AttentionProblem, PlanOfNext
from quire.attention.long_prompts import LongPromptPlan, OtherRows
from quire.attention.one_launch import OneLaunch, one_launch
from quire.attention.torch_backend import TorchAttention
from quire.attention.triton_backend import TritonAttention, TritonPlan
from quire.batch import Batch, SharedBlocks
from quire.kernels.shapes import DecodeRows, HeadsShape
from quire.kv_layout import KVLayout, LayerKV
from tests.fakes.attention import half_problem
from tests.fakes.batches import FakeRows

SHAPE = HeadsShape(
    num_heads=4,
    num_kv_heads=2,
    head_dim=64,
    rotary_dim=64,
    is_interleaved=False,
    eps=(0.0, 0.0),
)
BACKEND = TritonAttention.build(half_problem())
CPU = torch.device("cpu")


class Attend:
    """Notes what it is asked for."""

    block_bytes = 5000

    def __init__(self, *, usable: bool = True) -> None:
        self.usable = usable
        self.calls: list[tuple[tuple[Tensor, ...], DecodeRows]] = []

    def is_usable(self) -> bool:
        return self.usable

    def __call__(self, *given: Any) -> Tensor:
        *tensors, rows = given
        self.calls.append((tuple(tensors), rows))
        return tensors[0].new_full((len(tensors[0]), 4, 64), 7.0)


def step(num_tokens: list[int]) -> Batch:
    layout = KVLayout.of((LayerKV(num_kv_heads=2, head_dim=64),))
    rows = FakeRows(layout, [[0] * 40] * len(num_tokens), block_size=16, for_gpu=True)
    rows.num_computed = [5 * (row + 1) for row in range(len(num_tokens))]
    batch, _ = rows.batch(dict(enumerate(num_tokens)))
    return batch


def attended(plan: AttentionPlan, attend: Attend) -> Tensor | None:
    qkv, cos, sin, kv_cache, slots = (torch.full((3, 2), float(i)) for i in range(5))
    return OneLaunch(attend)(qkv, cos, sin, kv_cache, slots, plan)


@pytest.mark.parametrize("is_left_to_us", [False, True])
@pytest.mark.parametrize("order", [[2, 0, 1], None])
def test_a_step_of_rows_with_one_query_is_one_launch(
    is_left_to_us: bool, order: list[int] | None
) -> None:
    batch = step([1, 1, 1])
    if order is not None:
        batch = replace(batch, decode_order=torch.tensor(order).int())
    plan = BACKEND.plan(batch, 0)
    attend = Attend()
    found = attended(PlanOfNext(plan=plan) if is_left_to_us else plan, attend)
    assert found is not None and bool((found == 7).all())
    ((given, rows),) = attend.calls
    assert [float(one[0, 0]) for one in given] == [0, 1, 2, 3, 4]
    assert torch.equal(rows.block_table, batch.groups[0].block_table)
    assert rows.seq_lens.tolist() == [6, 11, 16]
    assert rows.order.tolist() == (order or [0, 1, 2])


def shared(batch: Batch) -> Batch:
    blocks = SharedBlocks(members=torch.tensor([0, 1, 2]).int(), num_blocks=torch.ones(3).int())
    (group,) = batch.groups
    return replace(batch, groups=(replace(group, shared=blocks),))


OTHER_STEPS = {
    "a prompt": step([9]),
    "prompts": step([9, 2, 3]),
    "a prompt beside rows": step([1, 9, 1]),
    "a mixed graph": replace(step([1, 1, 1]), num_decode_rows=None),
    "a shared prefix": shared(step([1, 1, 1])),
}


@pytest.mark.parametrize("batch", OTHER_STEPS.values(), ids=OTHER_STEPS)
@pytest.mark.parametrize("is_left_to_us", [False, True])
def test_other_steps_are_left_to_the_backend(batch: Batch, is_left_to_us: bool) -> None:
    plan = BACKEND.plan(batch, 0)
    assert isinstance(plan, TritonPlan)
    attend = Attend()
    assert attended(PlanOfNext(plan=plan) if is_left_to_us else plan, attend) is None
    assert attend.calls == []


DECODE = step([1, 1, 1])
OTHER_PLANS: dict[str, AttentionPlan] = {
    "long prompts": LongPromptPlan(
        others=(OtherRows(tokens=slice(3), plan=BACKEND.plan(DECODE, 0)),), prompts=()
    ),
    "latent": TritonAttention.build(half_problem(num_kv_heads=1, value_dim=48)).plan(DECODE, 0),
    "torch": TorchAttention.build(half_problem()).plan(DECODE, 0),
}


@pytest.mark.parametrize("plan", OTHER_PLANS.values(), ids=OTHER_PLANS)
def test_plans_of_other_backends_are_left_to_them(plan: AttentionPlan) -> None:
    attend = Attend()
    assert attended(PlanOfNext(plan=plan), attend) is None
    assert attend.calls == []


def test_a_kernel_that_turned_out_not_to_work_is_not_called() -> None:
    attend = Attend(usable=False)
    assert attended(BACKEND.plan(step([1, 1, 1]), 0), attend) is None
    assert attend.calls == []


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Of a device that has the kernel."""
    asked: list[dict[str, Any]] = []

    def attend_rows(shape: HeadsShape, norms: Any, **options: Any) -> Attend:
        asked.append({"shape": shape, "norms": norms, **options})
        return Attend()

    monkeypatch.setattr(module, "attend_rows", attend_rows)
    return asked


def test_a_plain_layer_has_one(asked: list[dict[str, Any]]) -> None:
    norms = (torch.ones(64), torch.ones(64))
    problem = half_problem(scale=0.3, block_size=32)
    made = one_launch(problem, SHAPE, norms, CPU)
    assert isinstance(made, OneLaunch)
    assert made.block_bytes == 5000
    assert asked == [
        {
            "shape": SHAPE,
            "norms": norms,
            "scale": 0.3,
            "block_size": 32,
            "dtype": torch.float16,
            "device": CPU,
        }
    ]


@pytest.mark.parametrize(
    "problem",
    [
        half_problem(window=7),
        half_problem(soft_cap=30.0),
        half_problem(alibi_slopes=(0.5, 0.25, 0.125, 0.0625)),
        half_problem(has_sinks=True),
        half_problem(value_dim=48),
    ],
    ids=["window", "soft cap", "ALiBi", "sinks", "latent"],
)
def test_a_layer_with_other_options_has_none(
    problem: AttentionProblem, asked: list[dict[str, Any]]
) -> None:
    assert one_launch(problem, SHAPE, None, CPU) is None
    assert asked == []


def test_a_device_without_the_kernel_has_none() -> None:
    assert one_launch(half_problem(), SHAPE, None, CPU) is None
