"""How a checkpoint stores its matrices, according to ``quantization_config``. Knows no family."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from quire.errors import UnsupportedModelError
from quire.models.hf_config import HFConfig
from quire.weights.packed import BlockScaled
from quire.weights.weight_map import Operation, Source

Stored: TypeAlias = Callable[[str], Operation]  # from a matrix's name to how it is read


def plain_or_block_scaled(hf: HFConfig) -> Stored:
    """Matrices stored in the model's dtype, or as 8-bit floats with a scale per square block."""
    quantization = hf.nested("quantization_config")
    stored = quantization.choice("quant_method", {"none": Source, "fp8": None}, "none")
    if stored is not None:
        return stored
    quantization.choice("fmt", {"e4m3": None}, "e4m3")
    quantization.choice("activation_scheme", {"dynamic": None}, "dynamic")
    # Concerns activations, which are not quantized here; weight scales are read as they are.
    quantization.choice("scale_fmt", {"float": None, "ue8m0": None}, "float")
    block = quantization.list("weight_block_size")
    if len(block) != 2 or block[0] != block[1]:
        raise UnsupportedModelError(
            f"config key 'quantization_config.weight_block_size' = {block} is not supported for "
            f"{hf.architecture}; supported: squares, such as [128, 128]"
        )
    return lambda name: BlockScaled(name, f"{name}_scale_inv", block[0])
