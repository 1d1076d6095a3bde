"""Config reads and weight names shared by mixture-of-experts families. Knows no family."""

from __future__ import annotations

from collections.abc import Mapping

from quire.errors import UnsupportedModelError
from quire.models.hf_config import HFConfig
from quire.models.stored import Stored
from quire.models.weight_names import Entries
from quire.weights.weight_map import Source, StackedExperts

LLAMA_EXPERT = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
MIXTRAL_EXPERT = {"gate": "w1", "up": "w3", "down": "w2"}


def expert_entries(
    prefix: str,
    num_experts: int,
    names: Mapping[str, str] = LLAMA_EXPERT,
    stored: Stored = Source,
) -> Entries:
    """Weight map entries of router and experts at ``prefix``; ``names`` maps our names of an
    expert's matrices to the checkpoint's.

    ``stored`` makes the read operation from a matrix's name.
    """
    return {
        "layers.*.moe.router.weight": Source(f"{prefix}.gate.weight"),
        **{
            f"layers.*.moe.experts.{ours}.weight": StackedExperts(
                stored(f"{prefix}.experts.{{expert}}.{theirs}.weight"), num_experts
            )
            for ours, theirs in names.items()
        },
    }


def shared_entries(prefix: str, stored: Stored = Source) -> Entries:
    """Weight map entries of the shared expert at ``prefix``, which every token goes through."""
    return {
        f"layers.*.moe.shared.{ours}.weight": stored(f"{prefix}.{theirs}.weight")
        for ours, theirs in LLAMA_EXPERT.items()
    }


def layers_with_experts(hf: HFConfig) -> list[bool]:
    """Per layer, whether it has experts: every ``decoder_sparse_step``-th one that is not in
    ``mlp_only_layers`` (Qwen)."""
    step, num_layers = hf.int("decoder_sparse_step", 1), hf.int("num_hidden_layers")
    dense = hf.optional_list("mlp_only_layers") or []
    if step < 1:
        raise UnsupportedModelError(
            f"config key 'decoder_sparse_step' of {hf.architecture} is {step} and must be at least "
            "1: it counts layers from one with experts to the next"
        )
    return [layer not in dense and (layer + 1) % step == 0 for layer in range(num_layers)]
