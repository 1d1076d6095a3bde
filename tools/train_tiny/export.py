"""Owns the files of the models: bf16 weights, config, generation config and tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from .model import TinyLlama

_GENERATION = {"do_sample": False, "eos_token_id": [2, 0], "pad_token_id": 0}


def _write_json(path: Path, data: dict[str, object]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def save_model(model: TinyLlama, folder: Path, tokenizer_folder: Path) -> None:
    """Write a model as transformers reads it; the tied output layer is not stored."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
    }
    save_file(state, str(folder / "model.safetensors"), metadata={"format": "pt"})
    _write_json(folder / "config.json", model.shape.config())
    _write_json(folder / "generation_config.json", dict(_GENERATION))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer_folder / name, folder / name)
