import pytest
import torch
from benchmarks.gpu_parts.ceilings import ModelCost, Rates, ceiling_s, decode_s, measure_rates
from benchmarks.gpu_parts.models import CONFIGS

from quire.bench.standard_workloads import Workload, standard_workload

DENSE = {
    "hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 5, "intermediate_size": 7, "vocab_size": 11,
}  # fmt: skip
RATES = Rates(read_bytes=1.0, flop=1e12)  # a device that only reads slowly


def test_weights_of_a_dense_model() -> None:
    cost = ModelCost.of(DENSE)
    per_layer = 8 * 20 + 2 * 8 * 10 + 20 * 8 + 3 * 8 * 7  # q, k and v, o, gate up and down
    assert (cost.dense, cost.head, cost.active) == (3 * per_layer, 88, 3 * per_layer)
    assert cost.weight_bytes(1) == cost.weight_bytes(256) == 2 * (3 * per_layer + 88)
    assert cost.token_bytes == 3 * 2 * 10 * 2  # layers, K and V, width, bytes


def test_a_decode_step_reads_weights_and_every_key_once() -> None:
    cost = ModelCost.of(DENSE)
    workload = Workload(name="w", prompts=[[1] * 10, [1] * 4], output_lens=[3, 2])
    tokens_read = (10 + 1) + (4 + 1) + (10 + 2)
    wanted = 2 * cost.weight_bytes(1) + tokens_read * cost.token_bytes
    assert decode_s(cost, workload, RATES) == pytest.approx(wanted)


def test_a_shared_prefix_is_read_once_a_step() -> None:
    cost = ModelCost.of(DENSE)
    prompts = [[1] * 10, [1] * 10]
    apart = Workload(name="w", prompts=prompts, output_lens=[2, 2])
    shared = Workload(name="w", prompts=prompts, output_lens=[2, 2], shared_len=8)
    saved = decode_s(cost, apart, RATES) - decode_s(cost, shared, RATES)
    assert saved == pytest.approx(8 * cost.token_bytes)


def test_prompts_are_bound_by_multiplications() -> None:
    cost = ModelCost.of(DENSE)
    workload = Workload(name="w", prompts=[[1] * 100], output_lens=[1])
    rates = Rates(read_bytes=1e12, flop=1.0)
    products = 2 * cost.active * 100 + 2 * cost.head - 2 * 3 * 8 * 7 * 99  # one MLP, one token
    attention = 4 * 3 * 20 * 100**2 / 2  # twice a product of [100, 20] and [20, 100], half of it
    assert ceiling_s(cost, workload, rates) == pytest.approx(products + attention)


def test_experts_are_read_when_a_token_needs_them() -> None:
    cost = ModelCost.of(CONFIGS["qwen3-30b-a3b"])
    assert cost.share_of_experts(1) == pytest.approx(8 / 128)
    assert cost.share_of_experts(256) == pytest.approx(1.0, abs=1e-6)
    assert 29e9 < cost.weight_bytes(256) / 2 < 31e9  # the 30B of its name, less the embedding
    assert 2.9e9 < cost.weight_bytes(1) / 2 < 3.4e9  # and the 3B


@pytest.mark.parametrize(
    ("model", "workload", "low", "high"),
    [
        ("qwen3-0.6b", "single", 3_500, 4_000),
        ("llama-3.1-8b", "single", 290, 310),
        ("qwen3-30b-a3b", "single", 680, 760),
        ("llama-3.1-8b", "prefill", 262_144 / 64 / 1.4, 262_144),
    ],
)
def test_ceilings_of_an_h200(model: str, workload: str, low: float, high: float) -> None:
    """As computed by hand for a GPU that reads 4.55 TB/s and multiplies 790 TFLOP/s."""
    rates = Rates(read_bytes=4.55e12, flop=790e12)
    one = standard_workload(workload)
    seconds = ceiling_s(ModelCost.of(CONFIGS[model]), one, rates)
    assert low < one.num_output_tokens / seconds * (1 if workload == "single" else 4096) < high


def test_rates_are_measured() -> None:
    rates = measure_rates("cuda" if torch.cuda.is_available() else "cpu")
    assert rates.read_bytes > 1e8 and rates.flop > 1e8 and rates.how_read
