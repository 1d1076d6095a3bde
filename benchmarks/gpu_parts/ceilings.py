"""The least time that a workload can take: every weight, key and value read once a step, every
multiplication done once, at rates measured on this device. Pure arithmetic apart from measuring.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from quire.bench.standard_workloads import Workload

BYTES = 2  # of a bf16 number
READ_SHARE = 1.06  # read bandwidth relative to that of a copy, as measured on an H200


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """What the device can do per second."""

    read_bytes: float
    flop: float
    how_read: str = ""  # which measurement gave `read_bytes`


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCost:
    """Sizes of a decoder's parts."""

    num_layers: int
    q_width: int
    kv_width: int
    dense: int  # weights of all layers that every token uses
    mlp: int  # those of ``dense`` that follow the attention of one layer
    expert: int  # weights of one expert in one layer; 0 without experts
    num_experts: int
    top_k: int
    head: int  # weights of the output head

    @classmethod
    def of(cls, config: dict[str, Any]) -> ModelCost:
        hidden, layers = config["hidden_size"], config["num_hidden_layers"]
        heads = config["num_attention_heads"]
        head_dim = config.get("head_dim") or hidden // heads
        q_width = heads * head_dim
        kv_width = config.get("num_key_value_heads", heads) * head_dim
        attention = hidden * (2 * q_width + 2 * kv_width)
        num_experts = config.get("num_experts", 0)
        if num_experts:
            mlp, expert = hidden * num_experts, 3 * hidden * config["moe_intermediate_size"]
        else:
            mlp, expert = 3 * hidden * config["intermediate_size"], 0
        return cls(
            num_layers=layers, q_width=q_width, kv_width=kv_width,
            dense=layers * (attention + mlp), mlp=mlp, expert=expert, num_experts=num_experts,
            top_k=config.get("num_experts_per_tok", 0), head=hidden * config["vocab_size"],
        )  # fmt: skip

    @property
    def active(self) -> int:
        """Weights that one token is multiplied with, without the head."""
        return self.dense + self.num_layers * self.top_k * self.expert

    @property
    def behind_attention(self) -> int:
        """Weights of one layer that one token is multiplied with after attention."""
        return self.mlp + self.top_k * self.expert

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's keys and values in all layers."""
        return 2 * BYTES * self.kv_width * self.num_layers

    def share_of_experts(self, num_tokens: int) -> float:
        """Expected share of a layer's experts that ``num_tokens`` touch, routed evenly."""
        if not self.num_experts:
            return 0.0
        return 1 - (1 - self.top_k / self.num_experts) ** num_tokens

    def weight_bytes(self, num_tokens: int) -> float:
        """Expected bytes of weights that a step of ``num_tokens`` reads."""
        touched = self.num_experts * self.share_of_experts(num_tokens)
        return BYTES * (self.dense + self.head + self.num_layers * touched * self.expert)

    def attention_flop(self, start: int, end: int) -> float:
        """FLOP of attention for positions ``start`` to ``end``, each with all before it."""
        return 2 * self.num_layers * self.q_width * (end**2 - start**2)


def ceiling_s(cost: ModelCost, workload: Workload, rates: Rates) -> float:
    """The least seconds for a workload whose requests all run at once."""
    return prompts_s(cost, workload, rates) + decode_s(cost, workload, rates)


def prompts_s(cost: ModelCost, workload: Workload, rates: Rates) -> float:
    shared = workload.shared_len
    lengths = [len(prompt) for prompt in workload.prompts]
    num_new = sum(lengths) - shared * (len(lengths) - 1)
    flop = 2.0 * cost.active * num_new + 2.0 * cost.head * len(lengths)
    # Behind the last layer's attention, only the last token of each prompt is needed.
    flop -= 2.0 * cost.behind_attention * (num_new - len(lengths))
    flop += cost.attention_flop(0, shared)
    flop += sum(cost.attention_flop(shared, length) for length in lengths)
    return max(flop / rates.flop, cost.weight_bytes(num_new) / rates.read_bytes)


def decode_s(cost: ModelCost, workload: Workload, rates: Rates) -> float:
    total = 0.0
    pairs = list(zip(workload.prompts, workload.output_lens, strict=True))
    for step in range(1, max(workload.output_lens)):
        running = [len(prompt) + step for prompt, wanted in pairs if wanted > step]
        kv = sum(running) - workload.shared_len * (len(running) - 1)
        reads = cost.weight_bytes(len(running)) + kv * cost.token_bytes
        flop = 2.0 * len(running) * (cost.active + cost.head)
        total += max(reads / rates.read_bytes, flop / rates.flop)
    return total


def measure_rates(device: str) -> Rates:
    """Measure the bytes read and bf16 operations per second of this device."""
    reads = {f"copy x {READ_SHARE}": copied_bytes_per_s(device) * READ_SHARE}
    if device == "cuda":
        reads |= _read_bytes_per_s()
    for name, rate in reads.items():
        print(f"reads by {name}: {rate / 1e12:.3f} TB/s")
    how, fastest = max(reads.items(), key=lambda item: item[1])
    return Rates(read_bytes=fastest, flop=product_flop_per_s(device), how_read=how)


def copied_bytes_per_s(device: str) -> float:
    """Bytes per second that a copy reads and writes, both counted."""
    source = torch.zeros(1 << (31 if device == "cuda" else 27), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / median_s(lambda: target.copy_(source), device)


def product_flop_per_s(device: str) -> float:
    size = 8192 if device == "cuda" else 512
    a, b = torch.randn(2, size, size, device=device).to(torch.bfloat16)
    return 2 * size**3 / median_s(lambda: a @ b, device)


def _read_bytes_per_s() -> dict[str, float]:
    """The read rate of a kernel that only reads; empty where the kernel cannot run."""
    try:
        from .read_kernel import read_all

        source = torch.zeros(1 << 31, dtype=torch.uint8, device="cuda")
        return {"a kernel": source.numel() / median_s(lambda: read_all(source), "cuda")}
    except Exception as error:  # a ceiling from the copy is better than no benchmark
        print(f"the kernel that only reads failed: {error!r}")
        return {}


def median_s(function: Callable[[], object], device: str) -> float:
    """Median seconds of one call; the first three are not counted."""
    if device != "cuda":
        times = []
        for _ in range(8):
            started = time.perf_counter()
            function()
            times.append(time.perf_counter() - started)
        return statistics.median(times[3:])
    times = []
    for _ in range(13):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return statistics.median(times[3:])
