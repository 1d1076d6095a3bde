"""Weights stored in fewer bits with scales, read as plain values: weight map operations.

The reader converts their results to the model's dtype.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from quire.weights.weight_map import HubTensors, Index

_MXFP4_BLOCK = 32  # values that share a scale, two in a byte
_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_EXPONENT_BIAS = 127


@dataclass(frozen=True, slots=True)
class Mxfp4:
    """Matrices of 4-bit floats: OCP Microscaling Formats 1.0, section 5.

    ``blocks`` [..., rows, columns / 32, 16] uint8, the first of two values in a byte's low half;
    ``scales`` [..., rows, columns / 32] uint8, exponents of two. bfloat16 holds every product.
    """

    blocks: str
    scales: str

    def at(self, layer: str) -> Mxfp4:
        return Mxfp4(self.blocks.replace("*", layer), self.scales.replace("*", layer))

    def names(self) -> tuple[str, ...]:
        return self.blocks, self.scales

    def shape(self, tensors: HubTensors) -> tuple[int, ...]:
        *outer, num_bytes = tensors.packed_shape(self.blocks)
        if tensors.packed_shape(self.scales) != tuple(outer) or 2 * num_bytes != _MXFP4_BLOCK:
            raise ValueError(
                f"its blocks are {[*outer, num_bytes]} and its scales "
                f"{list(tensors.packed_shape(self.scales))}; mxfp4 has a scale for every 16 bytes"
            )
        return (*outer[:-1], outer[-1] * _MXFP4_BLOCK)

    def read(self, tensors: HubTensors, index: Index) -> Tensor:
        *outer, columns = index
        where = (*outer, _covering(columns, _MXFP4_BLOCK))
        blocks = tensors.read(self.blocks, (*where, slice(0, _MXFP4_BLOCK // 2)))
        scales = tensors.read(self.scales, where)
        # one matrix at a time: the indices of a whole layer's experts would take much memory
        matrices = [
            unpack_mxfp4(one, its_scales)
            for one, its_scales in zip(
                blocks.flatten(0, -4).unbind(0), scales.flatten(0, -3).unbind(0), strict=True
            )
        ]
        whole = torch.stack(matrices).view(*blocks.shape[:-2], -1)
        return whole[..., _within(columns, _MXFP4_BLOCK)]


def unpack_mxfp4(blocks: Tensor, scales: Tensor) -> Tensor:
    """Values [..., columns] of blocks [..., columns / 32, 16] and scales [..., columns / 32]."""
    halves = torch.tensor([*_E2M1, *(-value for value in _E2M1)], dtype=torch.bfloat16)
    byte = torch.arange(256)
    pairs = torch.stack((halves[byte % 16], halves[byte // 16]), dim=1)  # of each byte
    values = pairs[blocks.int()].flatten(-2)
    factors = torch.exp2(scales.float() - _EXPONENT_BIAS).bfloat16()
    return (values * factors.unsqueeze(-1)).flatten(-2)


@dataclass(frozen=True, slots=True)
class BlockScaled:
    """A matrix in 8-bit floats with a factor for every square of ``block`` values a side. Factors
    may be of any float type."""

    weight: str
    scales: str
    block: int

    def at(self, layer: str) -> BlockScaled:
        return replace(
            self,
            weight=self.weight.replace("*", layer),
            scales=self.scales.replace("*", layer),
        )

    def names(self) -> tuple[str, ...]:
        return self.weight, self.scales

    def shape(self, tensors: HubTensors) -> tuple[int, ...]:
        shape, scales = tensors.packed_shape(self.weight), tensors.packed_shape(self.scales)
        wanted = tuple(-(-size // self.block) for size in shape)
        if scales != wanted:
            raise ValueError(
                f"it is {list(shape)} and has scales {list(scales)}; blocks of {self.block} need "
                f"{list(wanted)}"
            )
        return shape

    def read(self, tensors: HubTensors, index: Index) -> Tensor:
        rows, columns = index
        factors = tensors.read(
            self.scales, (_covering(rows, self.block), _covering(columns, self.block))
        ).float()
        for dim, part in enumerate(index):
            factors = factors.repeat_interleave(self.block, dim)
            within = _within(part, self.block)
            factors = factors.narrow(dim, within.start, within.stop - within.start)
        return tensors.read(self.weight, index).float() * factors


def _covering(part: slice, block: int) -> slice:
    """The blocks in which the part lies."""
    return slice(part.start // block, -(-part.stop // block))


def _within(part: slice, block: int) -> slice:
    """Where the part lies within the blocks of `_covering`."""
    start = part.start % block
    return slice(start, start + part.stop - part.start)
