"""GPT-J: attention and MLP side by side behind one norm, interleaved rotation of the first values
of a head, a head with a bias."""

from __future__ import annotations

from quire.errors import UnsupportedModelError
from quire.layers.spec import (
    AttentionSpec,
    EmbeddingSpec,
    HeadSpec,
    LayerNormSpec,
    PlainMLPSpec,
    RopeSpec,
)
from quire.models.common import ACTIVATION_NAMES
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import DecoderSpec, LayerSpec
from quire.models.weight_names import layer_entries, model_entries
from quire.weights.weight_map import WeightMap

_PARTS = {
    **{f"attention.{part}": f"attn.{part}_proj" for part in "qkv"},
    "attention.o": "attn.out_proj",
    "mlp.up": "mlp.fc_in",
    "mlp.down": "mlp.fc_out",
    "norm1": "ln_1",
}
_WEIGHTS = WeightMap(
    entries={
        **model_entries(embedding="wte", final_norm="ln_f"),
        **layer_entries("h.*", _PARTS),
    },
    ignored=("*attn.bias", "*attn.masked_bias", "lm_head.weight"),
    prefixes=("transformer.", ""),
)


def gptj(hf: HFConfig) -> ModelPlan:
    hidden_size, vocab_size = hf.int(("n_embd", "hidden_size")), hf.int("vocab_size")
    norm = LayerNormSpec(size=hidden_size, eps=hf.float("layer_norm_epsilon", 1e-5))
    mlp = PlainMLPSpec(
        hidden_size=hidden_size,
        inner_size=hf.int("n_inner", 4 * hidden_size),
        activation=hf.choice("activation_function", ACTIVATION_NAMES, "gelu_new"),
    )
    layer = LayerSpec(
        block="parallel", attention=_attention(hf, hidden_size), mlp=mlp, norms=(norm,)
    )
    spec = DecoderSpec(
        embedding=EmbeddingSpec(vocab_size=vocab_size, hidden_size=hidden_size),
        layers=(layer,) * hf.int(("n_layer", "num_hidden_layers")),
        final_norm=norm,
        head=HeadSpec(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            tied=hf.bool("tie_word_embeddings", False),
            bias=True,
        ),
    )
    hf.fixed("rotary", True)
    hf.fixed("scale_attn_weights", True)
    hf.check_unread()
    return ModelPlan(spec=spec, weights=_WEIGHTS)


def _attention(hf: HFConfig, hidden_size: int) -> AttentionSpec:
    num_heads = hf.int(("n_head", "num_attention_heads"))
    head_dim = hidden_size // num_heads
    rotary_dim = hf.int("rotary_dim", 64)
    if rotary_dim % 2 or not 2 <= rotary_dim <= head_dim:
        raise UnsupportedModelError(
            f"config key 'rotary_dim' = {rotary_dim} of {hf.architecture} must be an even number "
            f"from 2 to the head size, {head_dim}"
        )
    return AttentionSpec(
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=head_dim,
        scale=head_dim**-0.5,
        positions=RopeSpec(dim=rotary_dim, theta=10000.0, style="interleaved"),
    )
