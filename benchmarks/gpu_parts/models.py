"""Model folders without weights: configs of real models, to measure speed with dummy weights.

`tiny` has the bundled model's config: with --scale it rehearses the whole benchmark on a CPU.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from quire.assets import TINY_CHAT

LLAMA_3 = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
    "eos_token_id": 1,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
}
QWEN_3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000,
    "max_position_embeddings": 40960,
    "torch_dtype": "bfloat16",
    "head_dim": 128,
    "eos_token_id": 1,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen3-0.6b": {
        **QWEN_3,
        "hidden_size": 1024,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "intermediate_size": 3072,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "llama-3.1-8b": {
        **LLAMA_3,
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "vocab_size": 128256,
    },
    "qwen3-30b-a3b": {
        **QWEN_3,
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "hidden_size": 2048,
        "num_hidden_layers": 48,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "intermediate_size": 6144,
        "moe_intermediate_size": 768,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "vocab_size": 151936,
        "tie_word_embeddings": False,
    },
    "tiny": json.loads((TINY_CHAT / "config.json").read_text()),
}
# max_model_len of models where it is not 20,480 tokens, as for the peer.
MAX_MODEL_LEN = {"qwen3-30b-a3b": 8192, "tiny": 2048}
DEFAULT_MAX_MODEL_LEN = 20480


def max_model_len(name: str) -> int:
    return MAX_MODEL_LEN.get(name, DEFAULT_MAX_MODEL_LEN)


def write_model(root: Path, name: str) -> Path:
    """A folder with the config of ``name`` and nothing else."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIGS[name]))
    return folder
