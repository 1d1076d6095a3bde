"""What a row of the parity table is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

VOCAB_SIZE = 97


@dataclass(frozen=True, kw_only=True, slots=True)
class ParityRow:
    """One variant of one architecture."""

    architecture: str
    variant: str
    make_config: Callable[[], PreTrainedConfig]
    reference: str = ""  # the class in transformers, where its name is not the architecture's

    @property
    def id(self) -> str:
        return f"{self.architecture}-{self.variant}"


def parity_row(
    architecture: str,
    variant: str,
    config: type[PreTrainedConfig],
    *,
    reference: str = "",
    **fields: Any,
) -> ParityRow:
    """``fields`` are the config's."""
    return ParityRow(
        architecture=architecture,
        variant=variant,
        make_config=lambda: config(**fields),
        reference=reference,
    )


SMALL: dict[str, Any] = {
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
