"""Routings choose and weigh as their formulas say, token by token."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from quire.errors import UnsupportedModelError
from quire.layers.moe_spec import GroupedRouting, MoESpec, RoutingSpec, SparseMixerRouting
from quire.layers.routing import Route, build_router, load_route
from tests.unit.layers.readers import MemoryReader

GROUPED = GroupedRouting(
    score="sigmoid",
    num_groups=4,
    top_groups=2,
    group_rank="best_two",
    renormalise=True,
    scale=2.5,
    correction=True,
)


def spec_of(routing: RoutingSpec, *, num_experts: int = 8, top_k: int = 2) -> MoESpec:
    return MoESpec(
        hidden_size=6,
        inner_size=4,
        num_experts=num_experts,
        top_k=top_k,
        activation="silu",
        routing=routing,
        exact_router=True,
    )


@pytest.mark.parametrize(
    ("routing", "sizes", "message"),
    [
        (SparseMixerRouting(jitter=0.1), {"top_k": 0}, "to 0 of 8 experts"),
        (SparseMixerRouting(jitter=0.1), {"top_k": 9}, "to 9 of 8 experts"),
        (GROUPED, {"num_experts": 10}, r"10 experts into 4 groups \(n_group\)"),
        (GROUPED, {"num_experts": 4}, r"4 groups \(n_group\) by their best two experts, and 4"),
        (
            GROUPED,
            {"top_k": 5},
            r"to 5 experts \(num_experts_per_tok\), but its 2 groups .* have 4",
        ),
    ],
)
def test_choices_that_cannot_be_made_are_refused(
    routing: RoutingSpec, sizes: dict[str, int], message: str
) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        spec_of(routing, **sizes)


@pytest.mark.parametrize("top_groups", [0, 5])
def test_groups_that_are_not_there_cannot_be_chosen(top_groups: int) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"chooses {top_groups} \(topk_group\) of 4"):
        replace(GROUPED, top_groups=top_groups)


def test_groups_of_one_expert_that_are_all_chosen_need_no_rank() -> None:
    routing = replace(GROUPED, num_groups=8, top_groups=8, correction=False)
    assert route_of(routing)(logits_of([0.1] * 6 + [0.3, 0.2])).experts.tolist() == [[6, 7]]


def route_of(routing: RoutingSpec, correction: list[float] | None = None, top_k: int = 2) -> Route:
    tensors = {} if correction is None else {"m.router.correction": torch.tensor(correction)}
    return load_route(spec_of(routing, top_k=top_k), MemoryReader(tensors), "m")


def logits_of(shares: list[float]) -> Tensor:
    """Of the sigmoid."""
    return torch.tensor([shares]).logit()


def test_the_best_group_is_the_one_with_the_best_two_together() -> None:
    routing = GroupedRouting(
        score="sigmoid", num_groups=4, top_groups=1, group_rank="best_two", renormalise=False,
        scale=1.0, correction=False,
    )  # fmt: skip
    # the best expert of all is in the first group, the best pair in the third
    logits = logits_of([0.9, 0.1, 0.3, 0.3, 0.6, 0.7, 0.2, 0.2])
    found = route_of(routing)(logits)
    assert found.experts.tolist() == [[5, 4]] and found.experts.dtype == torch.int32
    torch.testing.assert_close(found.weights, torch.tensor([[0.7, 0.6]]))


def test_a_correction_takes_part_in_choosing_and_not_in_weighing() -> None:
    correction = [0.0, 0.0, 0.5, 0.0, 0.0, 0.6, 0.0, 0.0]
    logits = logits_of([0.1, 0.1, 0.4, 0.1, 0.5, 0.2, 0.45, 0.3])
    # groups by their best two: 0.2, 1.0, 1.3, 0.75; of the second and third the best are 2 and 5
    found = route_of(GROUPED, correction)(logits)
    assert sorted(found.experts[0].tolist()) == [2, 5]
    shares = {2: 0.4 / 0.6 * 2.5, 5: 0.2 / 0.6 * 2.5}
    wanted = torch.tensor([[shares[expert] for expert in found.experts[0].tolist()]])
    torch.testing.assert_close(found.weights, wanted)


def test_groups_of_a_softmax_rank_by_their_best() -> None:
    routing = GroupedRouting(
        score="softmax", num_groups=2, top_groups=1, group_rank="best", renormalise=False,
        scale=16.0, correction=False,
    )  # fmt: skip
    logits = torch.tensor([[2.0, -5.0, -5.0, 0.5, 1.9, 1.9, 1.9, 1.9]])
    found = route_of(routing)(logits)
    assert found.experts.tolist() == [[0, 3]]
    torch.testing.assert_close(found.weights, 16 * logits.softmax(1)[:, [0, 3]])


@pytest.mark.parametrize("top_k", [1, 3])
def test_without_groups_the_best_of_all_are_chosen(top_k: int) -> None:
    routing = GroupedRouting(
        score="softmax", num_groups=1, top_groups=1, group_rank="best", renormalise=False,
        scale=1.0, correction=False,
    )  # fmt: skip
    logits = torch.randn(9, 8, generator=torch.Generator().manual_seed(0))
    found = route_of(routing, top_k=top_k)(logits)
    wanted = logits.softmax(1).topk(top_k)
    assert torch.equal(found.experts, wanted.indices.int())
    torch.testing.assert_close(found.weights, wanted.values)


def test_scores_that_are_all_zero_give_numbers() -> None:
    found = route_of(GROUPED, [0.0] * 8)(torch.full((1, 8), -1e9))
    assert found.weights.tolist() == [[0.0, 0.0]]
    assert len(set(found.experts[0].tolist())) == 2


def test_a_sparse_mixer_weighs_each_expert_among_those_nearly_as_good() -> None:
    route = route_of(SparseMixerRouting(jitter=0.05))
    logits = torch.tensor([[10.0, 9.5, 9.2, 3.0, 0.0, 0.0, 0.0, -10.0]])
    found = route(logits)
    assert found.experts.tolist() == [[0, 1]]
    # within a tenth of the best: 10, 9.5, 9.2; of the second best: 9.5, 9.2
    first, second = torch.tensor([10.0, 9.5, 9.2]).softmax(0), torch.tensor([9.5, 9.2]).softmax(0)
    torch.testing.assert_close(found.weights, torch.stack((first[0], second[0]))[None])


def test_the_exact_router_is_not_rounded_to_the_models_dtype() -> None:
    spec = spec_of(GROUPED)
    reader = MemoryReader.random(spec.parameters(), "m")
    router = build_router(spec)
    router.load(reader, "m")
    x = torch.randn(5, 6).bfloat16()
    logits = router(x)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, x.float() @ reader.tensors["m.router.weight"].T)
