"""Checkpoints in fewer bits give the logits of the values that they stand for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import DeepseekV3ForCausalLM, PreTrainedModel
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from quire.errors import ModelLoadError
from quire.models.loading import build_model
from tests.models.configs import FALLBACK_ROWS, PARITY_ROWS, engine_config, save_random_model
from tests.models.loaded import assert_whole_and_equal


def _row(architecture: str, variant: str, folder: Path) -> PreTrainedModel:
    (row,) = (row for row in PARITY_ROWS if row.id == f"{architecture}-{variant}")
    return save_random_model(row, folder)


def _save(folder: Path, tensors: dict[str, Tensor], quantization: dict[str, object]) -> None:
    whole = {name: one.contiguous() for name, one in tensors.items()}
    save_file(whole, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = quantization
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("name", ["LlamaForCausalLM-plain", "ArceeForCausalLM-plain"])
@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_weights_whose_config_does_not_say_how_they_are_stored_are_refused(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    """In our own code and in transformers'; whole numbers that nobody reads are no weights."""
    (row,) = (row for row in (*PARITY_ROWS, *FALLBACK_ROWS) if row.id == name)
    save_random_model(row, tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file) | {"model.position_ids": torch.arange(9)}
    save_file(tensors, file)
    build_model(engine_config(tmp_path))
    weight = "model.layers.1.mlp.up_proj.weight"
    save_file(tensors | {weight: tensors[weight].to(dtype)}, file)
    with pytest.raises(ModelLoadError, match=rf"{weight} is stored as {str(dtype)[6:]}, and"):
        build_model(engine_config(tmp_path))


def test_gpt_oss_in_mxfp4(tmp_path: Path) -> None:
    reference = _row("GptOssForCausalLM", "mxfp4-sizes", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    random = torch.Generator().manual_seed(0)
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        experts, columns, rows = tensors.pop(name).shape
        shape = (experts, rows, columns // 32)
        blocks = torch.randint(256, (*shape, 16), generator=random, dtype=torch.uint8)
        scales = torch.randint(121, 125, shape, generator=random, dtype=torch.uint8)
        plain = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
        reference.get_parameter(name).data.copy_(plain)
        tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
    _save(tmp_path, tensors, {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]})
    assert_whole_and_equal(build_model(engine_config(tmp_path)), reference)


@pytest.mark.parametrize("more", [{}, {"scale_fmt": "ue8m0"}], ids=["v3", "v3.1"])
def test_deepseek_v3_in_blocks_of_fp8(more: dict[str, object], tmp_path: Path) -> None:
    """The plain values are saved first, so that transformers reads them in its own way."""
    _row("DeepseekV3ForCausalLM", "plain", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    plain, packed, block = {}, {}, 8
    for name, weight in tensors.items():
        plain[name] = packed[name] = weight
        is_packed = name.endswith("_proj.weight") or "kv_a_proj_with_mqa" in name
        if not is_packed:
            continue
        rows, columns = weight.shape
        scales = torch.rand(-(-rows // block), -(-columns // block)) / 8 + 0.01
        spread = scales.repeat_interleave(block, 0).repeat_interleave(block, 1)[:rows, :columns]
        packed[name] = (weight / spread).clamp(-400, 400).to(torch.float8_e4m3fn)
        packed[f"{name}_scale_inv"] = scales
        plain[name] = packed[name].float() * spread
    save_file(plain, tmp_path / "model.safetensors")
    reference = DeepseekV3ForCausalLM.from_pretrained(tmp_path).eval()
    quantization = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [block, block]}
    _save(tmp_path, packed, {**quantization, "activation_scheme": "dynamic", **more})
    assert_whole_and_equal(build_model(engine_config(tmp_path)), reference)
