"""What the plan of a Qwen3-MoE makes of its config; its logits are compared in the parity tests."""

from __future__ import annotations

from typing import Any

import pytest

from quire.errors import UnsupportedModelError
from quire.layers.moe_spec import MoESpec, SoftmaxRouting
from quire.models.loading import plan_of
from quire.models.spec import DecoderSpec

ARCHITECTURE = "Qwen3MoeForCausalLM"
PUBLISHED: dict[str, Any] = {  # the keys and values of Qwen3-30B-A3B
    "architectures": [ARCHITECTURE],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "decoder_sparse_step": 1,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 6144,
    "max_position_embeddings": 40960,
    "max_window_layers": 48,
    "mlp_only_layers": [],
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
    "num_attention_heads": 32,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "output_router_logits": False,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "router_aux_loss_coef": 0.001,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}


def spec_of(**changes: Any) -> DecoderSpec:
    return plan_of(PUBLISHED | changes, ARCHITECTURE).spec


def test_the_published_config() -> None:
    spec = spec_of()
    assert 30.5e9 < spec.num_parameters < 30.6e9
    assert {layer.mlp for layer in spec.layers} == {
        MoESpec(
            hidden_size=2048,
            inner_size=768,
            num_experts=128,
            top_k=8,
            activation="silu",
            routing=SoftmaxRouting(renormalise=True),
        )
    }


def test_layers_without_experts() -> None:
    spec = spec_of(num_hidden_layers=6, decoder_sparse_step=2, mlp_only_layers=[3])
    with_experts = [isinstance(layer.mlp, MoESpec) for layer in spec.layers]
    assert with_experts == [False, True, False, False, False, True]


@pytest.mark.parametrize(
    ("changes", "window"),
    [
        ({"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 48}, 7),
        ({"use_sliding_window": False, "sliding_window": 7}, None),
        ({"use_sliding_window": True, "sliding_window": None}, None),
    ],
)
def test_a_window_is_that_of_every_layer_or_none(
    changes: dict[str, Any], window: int | None
) -> None:
    assert {layer.attention.window for layer in spec_of(**changes).layers} == {window}


def test_a_width_that_no_layer_has_need_not_be_said() -> None:
    silent = {key: value for key, value in PUBLISHED.items() if key != "intermediate_size"}
    assert plan_of(silent, ARCHITECTURE).spec == spec_of()
    dense = silent | {"mlp_only_layers": [0]}
    assert plan_of(dense, ARCHITECTURE).spec == spec_of(mlp_only_layers=[0])  # the default is 6144


def test_a_step_that_counts_nothing_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"'decoder_sparse_step' .* is 0 and must"):
        spec_of(decoder_sparse_step=0)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="'shared_expert_intermediate_size' = 64"):
        spec_of(shared_expert_intermediate_size=64)


def test_norms_of_the_heads_are_no_choice() -> None:
    assert spec_of(use_qk_norm=True) == spec_of()
    with pytest.raises(UnsupportedModelError, match="'use_qk_norm' = False is not supported"):
        spec_of(use_qk_norm=False)
