"""gpt-oss: attention sinks, a window in every other layer, biases throughout, clamped gates."""

from __future__ import annotations

from dataclasses import replace

from quire.layers.moe_spec import MoESpec, SoftmaxRouting
from quire.layers.spec import AttentionSpec
from quire.models.common import attention_from, plan_from, rms_norm_from
from quire.models.hf_config import HFConfig
from quire.models.layer_types import every_nth_full, windows_by_layer
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.stored import Stored
from quire.models.weight_names import Entries, llama_weights_with
from quire.weights.expert_layouts import EveryOtherRow, TurnedExperts
from quire.weights.packed import Mxfp4
from quire.weights.weight_map import Operation, Source, WeightMap

_INERT = ("initial_context_length", "quantization_config.modules_to_not_convert")

_YARN = {  # for a config without scaling parameters
    "rope_type": "yarn",
    "factor": 32.0,
    "original_max_position_embeddings": 4096,
    "truncate": False,
}


def gpt_oss(hf: HFConfig) -> ModelPlan:
    norm, moe = rms_norm_from(hf, eps=1e-5), _moe(hf)
    layers = [
        LayerSpec(block="pre_norm", attention=attention, mlp=moe, norms=(norm, norm))
        for attention in _attentions(hf)
    ]
    stored = hf.nested("quantization_config").choice("quant_method", _STORED, "none")
    return plan_from(hf, layers, final_norm=norm, weights=_weights(stored), inert=_INERT)


def _attentions(hf: HFConfig) -> list[AttentionSpec]:
    bias, rope = hf.bool("attention_bias", True), hf.rope(theta=150000.0, silent=_YARN)
    attention = attention_from(hf, bias=bias, rope=rope, head_dim=64, num_kv_heads=8)
    window = hf.nullable_int("sliding_window", absent=128)
    windows = windows_by_layer(hf, window, every_nth_full(hf.int("num_hidden_layers"), 2))
    return [replace(attention, sinks=True, window=window) for window in windows]


def _moe(hf: HFConfig) -> MoESpec:
    hf.choice("hidden_act", {"silu": None}, "silu")
    hf.fixed("swiglu_limit", 7.0)
    hf.fixed("swiglu_alpha", 1.702)
    return MoESpec(
        hidden_size=hf.int("hidden_size"),
        inner_size=hf.int("intermediate_size"),
        num_experts=hf.int(("num_local_experts", "num_experts"), 128),
        top_k=hf.int(("num_experts_per_tok", "experts_per_token"), 4),
        activation="swiglu_oss",
        routing=SoftmaxRouting(renormalise=True),
        router_bias=True,
        expert_bias=True,
    )


def _turned(name: str) -> Operation:
    return TurnedExperts(Source(name))


def _mxfp4(name: str) -> Operation:
    return Mxfp4(f"{name}_blocks", f"{name}_scales")


_STORED: dict[str, Stored] = {"none": _turned, "mxfp4": _mxfp4}


def _weights(stored: Stored) -> WeightMap:
    """The weight map; ``stored`` makes the read operation of the experts' stacked matrices."""
    mlp = "model.layers.*.mlp"
    gate_up = f"{mlp}.experts.gate_up_proj"
    parts = {
        f"layers.*.moe.experts.{part}.{kind}": EveryOtherRow(both, first)
        for first, part in enumerate(("gate", "up"))
        for kind, both in (("weight", stored(gate_up)), ("bias", Source(f"{gate_up}_bias")))
    }
    more: Entries = {
        **parts,
        "layers.*.attention.sinks": Source("model.layers.*.self_attn.sinks"),
        "layers.*.moe.experts.down.weight": stored(f"{mlp}.experts.down_proj"),
        "layers.*.moe.experts.down.bias": Source(f"{mlp}.experts.down_proj_bias"),
    }
    return llama_weights_with({"moe.router": "mlp.router"}, more)
