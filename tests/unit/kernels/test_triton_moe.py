"""Triton kernels of mixtures of experts are their reference twins."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quire.kernels.reference import moe as reference
from quire.kernels.reference.moe import Routing
from quire.kernels.triton.activation import NAMES
from quire.kernels.triton.moe import TritonExperts, down_groups, tile_width
from quire.kernels.triton.moe_lines import add_down_lines, gate_up_lines
from quire.kernels.triton.moe_routing import softmax_top_k, sort_by_expert
from quire.kernels.triton.moe_tiles import Tile, add_sums, down_tiles, gate_up_tiles
from tests.unit.kernels.twins import DEVICE, DTYPES, assert_close, random

HIDDEN, INNER = 40, 24  # neither is a power of two or a multiple of the tiles'


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def routing_of(num_tokens: int, num_experts: int, top_k: int) -> Routing:
    return reference.softmax_top_k(random(num_tokens, num_experts), top_k, renormalise=True)


def one_expert(num_tokens: int, top_k: int) -> Routing:
    """All tokens at the same experts, the last ones."""
    logits = torch.arange(6.0, device=DEVICE).expand(num_tokens, 6)
    return reference.softmax_top_k(logits, top_k, renormalise=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize(("num_experts", "top_k"), [(128, 8), (5, 3), (6, 1), (4, 4)])
def test_routing_is_its_twin(
    dtype: torch.dtype, renormalise: bool, num_experts: int, top_k: int
) -> None:
    logits = random(7, num_experts, dtype=dtype)
    logits[3] = 0.0  # all equal: the first are chosen
    logits[4, 1] = logits[4, 3] = 9.0
    found = softmax_top_k(logits, top_k, renormalise)
    wanted = reference.softmax_top_k(logits, top_k, renormalise)
    assert torch.equal(found.experts, wanted.experts)
    torch.testing.assert_close(found.weights, wanted.weights)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("num_experts", [3, 5])
def test_a_token_without_numbers_goes_to_experts_that_there_are(
    num_experts: int, value: str
) -> None:
    logits = torch.full((2, num_experts), float(value), device=DEVICE)
    found = softmax_top_k(logits, 3, True)
    assert found.experts.tolist() == [[0, 1, 2]] * 2
    torch.testing.assert_close(found.weights, torch.full((2, 3), 1 / 3, device=DEVICE))


def test_an_expert_whose_logit_is_minus_infinity_has_no_share() -> None:
    logits = torch.tensor([[1.0, float("-inf"), 2.0]], device=DEVICE)
    found = softmax_top_k(logits, 3, False)
    assert found.experts.tolist() == [[2, 0, 1]]
    torch.testing.assert_close(found.weights, logits.softmax(1)[:, [2, 0, 1]])


@pytest.mark.parametrize("block_m", [16, 64])
@pytest.mark.parametrize(
    "routing",
    [
        routing_of(1, 16, 4),
        routing_of(33, 5, 2),
        routing_of(300, 64, 8),
        one_expert(40, 1),
        one_expert(90, 6),
    ],
    ids=["one-token", "few-experts", "many-experts", "all-to-one", "all-to-all"],
)
def test_order_is_its_twin(block_m: int, routing: Routing) -> None:
    num_experts = 64
    found = sort_by_expert(routing.experts, num_experts, block_m)
    wanted = reference.sort_by_expert(routing.experts, num_experts, block_m)
    assert torch.equal(found.tokens, wanted.tokens)
    assert torch.equal(found.places, wanted.places)
    assert torch.equal(found.ends, wanted.ends)
    assert torch.equal(found.tiles, wanted.tiles)


@pytest.mark.parametrize("block_m", [16, 64])
@pytest.mark.parametrize("routing", [routing_of(150, 12, 3), one_expert(200, 2)])
def test_every_pair_is_in_one_tile_of_its_expert(block_m: int, routing: Routing) -> None:
    pairs = reference.sort_by_expert(routing.experts, 12, block_m)
    by_place = routing.experts.flatten()[pairs.places.argsort()]
    seen = torch.zeros(len(pairs.tokens), dtype=torch.int64)
    for expert, start, stop in pairs.tiles.T.tolist():
        assert stop - start <= block_m and by_place[start:stop].eq(expert).all()
        seen[start:stop] += 1
    assert seen.eq(1).all()
    own = (routing.experts == by_place.unsqueeze(1).unsqueeze(2)).any(2)  # [place, token]
    assert own[torch.arange(len(own)), pairs.tokens.long()].all()


def test_more_pairs_than_a_program_looks_at_at_once() -> None:
    routing = routing_of(600, 8, 8)
    routing.experts[3:], routing.experts[:3] = 2, 5
    found = sort_by_expert(routing.experts, 8, 16)
    wanted = reference.sort_by_expert(routing.experts, 8, 16)
    assert torch.equal(found.tokens, wanted.tokens) and torch.equal(found.places, wanted.places)
    assert torch.equal(found.tiles, wanted.tiles)


def weights_of(num_experts: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    gate_up = random(num_experts, 2 * INNER, HIDDEN, dtype=dtype) * HIDDEN**-0.5
    return gate_up, random(num_experts, HIDDEN, INNER, dtype=dtype) * INNER**-0.5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("activation", "num_tokens", "top_k"),
    [(name, 1 + place % 3, 3 - place % 3) for place, name in enumerate(NAMES)],
)
def test_lines_are_their_twins(
    dtype: torch.dtype, activation: str, num_tokens: int, top_k: int
) -> None:
    gate_up, down = weights_of(6, dtype)
    x, h = random(num_tokens, HIDDEN, dtype=dtype), random(num_tokens, HIDDEN, dtype=dtype)
    routing = routing_of(num_tokens, 6, top_k)
    inner = gate_up_lines(x, routing.experts, gate_up, activation)
    assert_close(inner, reference.gate_up(x, routing.experts, gate_up, activation))
    wanted = h.clone()
    results = reference.down(inner, routing.experts, down)
    reference.add_sums(wanted, results, routing.weights)
    add_down_lines(h, inner, routing, down)
    assert_close(h, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("routing", [routing_of(21, 6, 2), one_expert(35, 2)], ids=["even", "all"])
@pytest.mark.parametrize("block_n", [16, 32])
def test_tiles_are_their_twins(dtype: torch.dtype, routing: Routing, block_n: int) -> None:
    gate_up, down = weights_of(6, dtype)
    num_tokens = len(routing.experts)
    x, h = random(num_tokens, HIDDEN, dtype=dtype), random(num_tokens, HIDDEN, dtype=dtype)
    tile = Tile(block_m=16, block_n=block_n, block_k=32, num_warps=4, num_stages=2)
    pairs = reference.sort_by_expert(routing.experts, 6, 16)
    inner = gate_up_tiles(x, pairs, gate_up, "silu", tile)
    wanted = reference.gate_up(x, routing.experts, gate_up, "silu")
    assert_close(inner[pairs.places], wanted)
    results = down_tiles(inner, pairs, down, tile)
    by_pair = reference.down(wanted, routing.experts, down)
    assert_close(results[pairs.places], by_pair)
    summed = h.clone()
    reference.add_sums(summed, by_pair, routing.weights)
    add_sums(h, results, pairs, routing.weights)
    assert_close(h, summed)


@pytest.mark.parametrize("routing", [routing_of(21, 6, 2), one_expert(35, 2)], ids=["even", "all"])
def test_groups_are_the_tiles_product(routing: Routing) -> None:
    inner = random(routing.experts.numel(), INNER, dtype=torch.bfloat16)
    _, down = weights_of(6, torch.bfloat16)
    pairs = reference.sort_by_expert(routing.experts, 6, 16)
    results = down_groups(inner, pairs, down)
    wanted = reference.down(inner[pairs.places], routing.experts, down)
    assert_close(results[pairs.places], wanted)


@pytest.mark.parametrize("num_tokens", [1, 2, 9])
def test_experts_of_a_device_are_their_definition(num_tokens: int) -> None:
    gate_up, down = weights_of(16, torch.float32)
    x, h = random(num_tokens, HIDDEN), random(num_tokens, HIDDEN)
    routing = routing_of(num_tokens, 16, 2)
    wanted = h.clone()
    inner = reference.gate_up(x, routing.experts, gate_up, "silu")
    results = reference.down(inner, routing.experts, down)
    reference.add_sums(wanted, results, routing.weights)
    TritonExperts(gate_up, down, "silu").add_to(x, routing, h)
    assert_close(h, wanted)


@pytest.mark.parametrize("num_tokens", [1, 2, 9])
def test_experts_with_biases_and_the_gate_of_gpt_oss(num_tokens: int) -> None:
    gate_up, down = weights_of(16, torch.float32)
    gate_up = 8 * gate_up  # some are beyond the limit
    biases = random(16, 2 * INNER), random(16, HIDDEN)
    x, h = random(num_tokens, HIDDEN), random(num_tokens, HIDDEN)
    routing = routing_of(num_tokens, 16, 2)
    wanted = h.clone()
    inner = reference.gate_up(x, routing.experts, gate_up, "swiglu_oss", biases[0])
    results = reference.down(inner, routing.experts, down, biases[1])
    reference.add_sums(wanted, results, routing.weights)
    experts = TritonExperts(
        gate_up, down, "swiglu_oss", gate_up_bias=biases[0], down_bias=biases[1]
    )
    experts.add_to(x, routing, h)
    assert_close(h, wanted)


def test_a_tile_takes_most_of_an_experts_pairs_at_once() -> None:
    widths = {pairs: tile_width(pairs, 128) for pairs in (64, 512, 2048, 4096, 65536)}
    assert widths == {64: 16, 512: 16, 2048: 32, 4096: 64, 65536: 128}
