"""Weights in fewer bits are read as the values that their format's definition gives."""

from __future__ import annotations

import pytest
import torch
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from quire.errors import ModelLoadError
from quire.weights.packed import BlockScaled, Mxfp4
from quire.weights.reader import WeightReader
from quire.weights.weight_map import WeightMap
from tests.fakes.checkpoints import MemoryCheckpoint

EXPERTS, ROWS, COLUMNS = 2, 6, 96


def mxfp4() -> tuple[MemoryCheckpoint, torch.Tensor]:
    """A checkpoint, and the values by transformers."""
    random = torch.Generator().manual_seed(0)
    shape = (EXPERTS, ROWS, COLUMNS // 32)
    blocks = torch.randint(256, (*shape, 16), generator=random, dtype=torch.uint8)
    scales = torch.randint(110, 140, shape, generator=random, dtype=torch.uint8)
    wanted = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).transpose(1, 2)
    return MemoryCheckpoint({"w_blocks": blocks, "w_scales": scales}), wanted


MXFP4 = Mxfp4("w_blocks", "w_scales")
MXFP4_MAP = WeightMap(entries={"w": MXFP4})


def test_mxfp4_is_what_transformers_makes_of_it() -> None:
    checkpoint, wanted = mxfp4()
    reader = WeightReader(checkpoint, MXFP4_MAP, torch.float32)
    assert torch.equal(reader.read("w", (EXPERTS, ROWS, COLUMNS)), wanted)


def test_bfloat16_holds_every_value_of_mxfp4() -> None:
    checkpoint, wanted = mxfp4()
    reader = WeightReader(checkpoint, MXFP4_MAP, torch.bfloat16)
    assert torch.equal(reader.read("w", (EXPERTS, ROWS, COLUMNS)).float(), wanted)


def test_mxfp4_by_hand() -> None:
    """1.5 and -6 in one byte, times two to the power of minus one."""
    blocks = torch.zeros(1, 1, 1, 16, dtype=torch.uint8)
    blocks[..., 0] = 0xF3
    scales = torch.full((1, 1, 1), 126, dtype=torch.uint8)
    checkpoint = MemoryCheckpoint({"b": blocks, "s": scales})
    reader = WeightReader(checkpoint, WeightMap(entries={"w": Mxfp4("b", "s")}), torch.float32)
    assert reader.read("w", (1, 1, 32))[0, 0, :3].tolist() == [0.75, -3.0, 0.0]


def test_a_part_of_an_mxfp4_tensor() -> None:
    checkpoint, wanted = mxfp4()
    index = (slice(1, 2), slice(1, 4), slice(20, 70))
    assert torch.equal(MXFP4.read(checkpoint, index).float(), wanted[index])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e8m0fnu])
@pytest.mark.parametrize("shape", [(5, 7), (4, 4), (9, 3)])
def test_blocks_of_a_matrix_are_multiplied_by_their_scales(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=random).to(torch.float8_e4m3fn)
    scales = torch.rand(-(-shape[0] // 4), -(-shape[1] // 4), generator=random).to(dtype)
    wanted = weight.float()
    for row in range(shape[0]):
        for column in range(shape[1]):
            wanted[row, column] *= scales[row // 4, column // 4].float()
    checkpoint = MemoryCheckpoint({"w": weight, "s": scales})
    scaled = BlockScaled("w", "s", 4)
    reader = WeightReader(checkpoint, WeightMap(entries={"w": scaled}), torch.float32)
    assert torch.equal(reader.read("w", shape), wanted)
    assert torch.equal(scaled.read(checkpoint, (slice(3, 4), slice(1, 3))), wanted[3:4, 1:3])


def test_scales_of_another_size_are_refused() -> None:
    weight_map = WeightMap(entries={"w": BlockScaled("w", "s", 4), "p": Mxfp4("b", "s")})

    def check(name: str, tensors: dict[str, torch.Tensor]) -> None:
        WeightReader(MemoryCheckpoint(tensors), weight_map, torch.float32).check(name, (8, 8))

    with pytest.raises(ModelLoadError, match=r"scales \[2, 3\]; blocks of 4 need \[2, 2\]"):
        check("w", {"w": torch.zeros(8, 8), "s": torch.zeros(2, 3)})
    with pytest.raises(ModelLoadError, match="a scale for every 16 bytes"):
        check("p", {"b": torch.zeros(2, 3, 16), "s": torch.zeros(2, 2)})
