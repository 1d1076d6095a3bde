"""The parity table: tiny random models of every architecture that Quire serves, as data.

``PARITY_ROWS`` says which; ``save_random_model`` writes one as ``transformers`` would publish it;
``engine_config`` makes Quire load it. Adding a model is adding a row.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel

from quire.config import CacheConfig, EngineConfig, LoadConfig, ModelConfig

VOCAB_SIZE = 97


@dataclass(frozen=True, kw_only=True, slots=True)
class ParityRow:
    """One variant of one architecture."""

    architecture: str  # also the name of the class in transformers
    variant: str
    make_config: Callable[[], PreTrainedConfig]

    @property
    def id(self) -> str:
        return f"{self.architecture}-{self.variant}"


def _row(
    architecture: str, variant: str, config: type[PreTrainedConfig], **fields: Any
) -> ParityRow:
    return ParityRow(
        architecture=architecture, variant=variant, make_config=lambda: config(**fields)
    )


_SMALL: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def _llama(variant: str, **fields: Any) -> ParityRow:
    return _row("LlamaForCausalLM", variant, transformers.LlamaConfig, **{**_SMALL, **fields})


def _llama_rope(rope_type: str, variant: str = "", **params: Any) -> ParityRow:
    rope = {"rope_type": rope_type, "rope_theta": 1000.0, **params}
    return _llama(f"rope-{rope_type}{variant}", rope_parameters=rope)


def _mistral(variant: str, **fields: Any) -> ParityRow:
    return _row("MistralForCausalLM", variant, transformers.MistralConfig, **{**_SMALL, **fields})


def _qwen2(variant: str, **fields: Any) -> ParityRow:
    return _row("Qwen2ForCausalLM", variant, transformers.Qwen2Config, **{**_SMALL, **fields})


def _qwen3(variant: str, **fields: Any) -> ParityRow:
    fields = {**_SMALL, "head_dim": 16, **fields}
    return _row("Qwen3ForCausalLM", variant, transformers.Qwen3Config, **fields)


def _gemma(variant: str, **fields: Any) -> ParityRow:
    fields = {**_SMALL, "head_dim": 16, **fields}
    return _row("GemmaForCausalLM", variant, transformers.GemmaConfig, **fields)


def _gpt2(variant: str, **fields: Any) -> ParityRow:
    sizes = {"vocab_size": VOCAB_SIZE, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
    return _row("GPT2LMHeadModel", variant, transformers.GPT2Config, **{**sizes, **fields})


def _mixtral(variant: str, **fields: Any) -> ParityRow:
    fields = {**_SMALL, "num_local_experts": 4, "num_experts_per_tok": 2, **fields}
    return _row("MixtralForCausalLM", variant, transformers.MixtralConfig, **fields)


def _qwen3_moe(variant: str, **fields: Any) -> ParityRow:
    experts = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
    fields = {**_SMALL, "head_dim": 16, **experts, **fields}
    return _row("Qwen3MoeForCausalLM", variant, transformers.Qwen3MoeConfig, **fields)


PARITY_ROWS: tuple[ParityRow, ...] = (
    _llama("plain"),
    _llama("tied", tie_word_embeddings=True),
    _llama("biases", attention_bias=True, mlp_bias=True),
    _llama("all-heads", num_key_value_heads=4),
    _llama("one-kv-head", num_key_value_heads=1),
    _llama("odd-sizes", hidden_size=36, head_dim=10, intermediate_size=50, num_attention_heads=3,
           num_key_value_heads=1, vocab_size=VOCAB_SIZE - 4),
    _llama("gelu", hidden_act="gelu", rms_norm_eps=1e-3),
    _llama_rope("linear", factor=2.0),
    _llama_rope("dynamic", factor=2.0),
    _llama_rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                original_max_position_embeddings=32),
    _llama_rope("yarn", factor=4.0, original_max_position_embeddings=32),
    _llama_rope("yarn", "-deepseek", factor=4.0, original_max_position_embeddings=32, mscale=1.0,
                mscale_all_dim=0.7, truncate=False),
    _mistral("no-window", sliding_window=None),
    _mistral("window", sliding_window=7),
    _mistral("head-dim", sliding_window=20, head_dim=12),
    _qwen2("plain"),
    _qwen2("tied", tie_word_embeddings=True, num_key_value_heads=4),
    _qwen2("upper-windows", num_hidden_layers=4, use_sliding_window=True, sliding_window=6,
           max_window_layers=2),
    _qwen2("layer-types", num_hidden_layers=3, use_sliding_window=True, sliding_window=9,
           layer_types=["sliding_attention", "full_attention", "sliding_attention"]),
    _qwen3("plain"),
    _qwen3("bias-tied", attention_bias=True, tie_word_embeddings=True),
    _gemma("plain"),
    _gemma("one-kv-head", num_key_value_heads=1),
    _gpt2("plain"),
    _gpt2("scales", scale_attn_by_inverse_layer_idx=True, n_inner=40, activation_function="relu"),
    _gpt2("untied", tie_word_embeddings=False, scale_attn_weights=False),
    _mixtral("plain"),
    _mixtral("window", sliding_window=7, num_experts_per_tok=3),
    _qwen3_moe("plain"),
    _qwen3_moe("renormalised", norm_topk_prob=True, attention_bias=True, num_experts_per_tok=4),
    _qwen3_moe("some-dense", num_hidden_layers=4, decoder_sparse_step=2, mlp_only_layers=[1],
               use_sliding_window=True, sliding_window=6),
)  # fmt: skip


def save_random_model(row: ParityRow, folder: Path, *, seed: int = 0) -> PreTrainedModel:
    """A random model of the row in float32, saved to ``folder``; also returned, to compare with."""
    torch.manual_seed(seed)
    config = row.make_config()
    config.architectures = [row.architecture]
    model: PreTrainedModel = getattr(transformers, row.architecture)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Loud enough that no part can be lost unseen, and not so loud that softmax saturates.
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
            else:
                parameter.normal_(0, parameter.shape[-1] ** -0.5)
    model.save_pretrained(folder)
    return model


def engine_config(
    folder: Path,
    *,
    dtype: str = "float32",
    max_model_len: int = 128,
    block_size: int = 16,
    hf_config: dict[str, Any] | None = None,
) -> EngineConfig:
    """The config of an engine for the model in ``folder``; its config.json unless one is given."""
    if hf_config is None:
        hf_config = json.loads((folder / "config.json").read_text())
    return EngineConfig(
        model=ModelConfig(
            model=str(folder),
            path=folder,
            tokenizer=folder,
            hf_config=hf_config,
            generation_config={},
            architecture=hf_config["architectures"][0],
            dtype=dtype,
            max_model_len=max_model_len,
            vocab_size=hf_config["vocab_size"],
            skip_tokenizer_init=True,
        ),
        load=LoadConfig(use_tqdm=False),
        cache=CacheConfig(block_size=block_size),
    )
