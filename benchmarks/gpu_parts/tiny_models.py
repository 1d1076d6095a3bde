"""Tiny random models, saved to folders, for checks of correctness. Needs transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel

from .family_models import FAMILY_MODELS

VOCAB_SIZE = 2000
_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 1024,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def _grouped_heads(**changes: Any) -> PreTrainedConfig:
    return transformers.Qwen3Config(**{**_COMMON, **changes})


def _windows(**changes: Any) -> PreTrainedConfig:
    fields = {**_COMMON, "use_sliding_window": True, "sliding_window": 48, "max_window_layers": 2}
    del fields["head_dim"]
    return transformers.Qwen2Config(**{**fields, **changes})


def _experts(**changes: Any) -> PreTrainedConfig:
    fields = {
        **_COMMON, "num_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 128,
        "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [],
    }  # fmt: skip
    return transformers.Qwen3MoeConfig(**{**fields, **changes})


TINY_MODELS: dict[str, tuple[str, Callable[..., PreTrainedConfig]]] = {
    "grouped-heads": ("Qwen3ForCausalLM", _grouped_heads),
    "windows": ("Qwen2ForCausalLM", _windows),
    "experts": ("Qwen3MoeForCausalLM", _experts),
    **FAMILY_MODELS,
}


def save_tiny_model(name: str, folder: Path, *, dtype: str = "float32", **changes: Any) -> None:
    """Save a random model. Its weights are large enough that a missing part changes the output, but
    not so large that attention saturates."""
    architecture, make_config = TINY_MODELS[name]
    torch.manual_seed(0)
    config = make_config(**changes)
    config.architectures = [architecture]
    model: PreTrainedModel = getattr(transformers, architecture)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
            else:
                parameter.normal_(0, parameter.shape[-1] ** -0.5)
    model.to(getattr(torch, dtype)).save_pretrained(folder)


def load_reference(folder: Path, device: str) -> PreTrainedModel:
    """The model of ``folder`` in transformers, float32. With eager attention, since in some
    versions the other implementations leave out soft caps."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval().to(device)
