"""From a config to a model with weights, and what it will weigh before any is read."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quire.config import EngineConfig
from quire.kernels.cpu import onednn
from quire.kv_layout import KVLayout
from quire.models.decoder import Decoder, Placement
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.registry import ModelRegistry
from quire.weights.checkpoint import open_checkpoint
from quire.weights.checkpoint_files import choose_weight_files
from quire.weights.reader import DummyReader, LoadReport, TensorReader, WeightReader

logger = logging.getLogger(__name__)

_NUM_SHOWN = 5  # unused tensors that the log names


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """A model that is ready to run."""

    model: Decoder
    kv_layout: KVLayout
    weight_bytes: int  # in the memory of the device
    report: LoadReport


def build_model(config: EngineConfig) -> LoadedModel:
    """Build the decoder of ``config`` and pull its weights; errors name the key or the tensor."""
    plan = plan_of(config.model.hf_config, config.model.architecture)
    placement = Placement(
        dtype=getattr(torch, config.model.dtype),
        device=torch.device(config.device.device),
        attention_backend=config.device.attention_backend,
        max_model_len=config.model.max_model_len,
        block_size=config.cache.block_size,
    )
    model = Decoder(plan.spec, placement)
    reader = CountingReader(_reader(config, plan, placement))
    model.load(reader)
    report = reader.report()
    if report.unused:
        logger.warning("%s", _about_unused(config, report.unused))
    return LoadedModel(
        model=model,
        kv_layout=model.kv_layout,
        weight_bytes=reader.num_bytes + model.head.copied_bytes,
        report=report,
    )


def plan_of(hf_config: Mapping[str, Any], architecture: str) -> ModelPlan:
    """The plan of an architecture and its config.json; needs no weights."""
    return ModelRegistry.plan_function(architecture)(HFConfig(hf_config, architecture))


def weight_bytes(plan: ModelPlan, dtype: torch.dtype, device: str) -> int:
    """What ``build_model`` will count, from the plan alone.

    Where products want weights in a layout of their own, a tied head is a copy of the embedding.
    """
    shapes = plan.parameter_shapes()
    num_values = sum(math.prod(shape) for shape in shapes.values())
    if plan.spec.head.tied and not onednn.why_not(device, dtype):
        num_values += math.prod(shapes["embedding.weight"])
    return num_values * dtype.itemsize


def check_weights(plan: ModelPlan, folder: Path, load_format: str) -> None:
    """Compare the headers of safetensors files with the plan; a ModelLoadError names the tensor.

    A folder without weights passes: a plan needs only the config.
    """
    chosen = choose_weight_files([entry.name for entry in folder.iterdir()], load_format)
    if chosen is None or chosen.kind != "safetensors":
        return
    reader = WeightReader(open_checkpoint(folder, load_format), plan.weights, torch.float32)
    for name, shape in plan.parameter_shapes().items():
        reader.check(name, shape)


def _about_unused(config: EngineConfig, names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:_NUM_SHOWN]) + (", ..." if len(names) > _NUM_SHOWN else "")
    return (
        f"{len(names)} tensors in {config.model.path} are not used by {config.model.architecture}: "
        f"{shown}; if they belong to the model, its config.json names the wrong architecture"
    )


class CountingReader:
    """Another reader, and the bytes of what it handed out."""

    def __init__(self, reader: TensorReader) -> None:
        self._reader = reader
        self.device = reader.device
        self.num_bytes = 0

    def has(self, name: str) -> bool:
        return self._reader.has(name)

    def read(
        self,
        name: str,
        shape: tuple[int, ...],
        rows: slice | None = None,
        columns: slice | None = None,
        experts: slice | None = None,
    ) -> Tensor:
        tensor = self._reader.read(name, shape, rows, columns, experts)
        self.num_bytes += tensor.nbytes
        return tensor

    def report(self) -> LoadReport:
        return self._reader.report()


def _reader(config: EngineConfig, plan: ModelPlan, placement: Placement) -> TensorReader:
    load = config.load
    if load.load_format == "dummy":
        return DummyReader(placement.dtype, placement.device, config.model.seed)
    return WeightReader(
        open_checkpoint(config.model.path, load.load_format),
        plan.weights,
        placement.dtype,
        placement.device,
        use_tqdm=load.use_tqdm,
    )
