"""Builds a fallback model: probe, load weights, connect paged attention, check."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel

from quire.config import EngineConfig
from quire.models.decoder import Placement
from quire.models.fallback.check import Check
from quire.models.fallback.model import TransformersModel
from quire.models.fallback.probe import probe, weight_bytes
from quire.models.fallback.weights import dummy_model, load_model
from quire.models.source import ModelSource
from quire.weights.checkpoint import open_checkpoint
from quire.weights.reader import LoadReport

_NUM_DIMS_OF_EXPERTS = 3  # expert, out, in
_LINE = 16  # bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedFallback:
    """A model that has passed the check."""

    model: TransformersModel
    weight_bytes: int
    report: LoadReport


def build_fallback(
    source: ModelSource, config: EngineConfig, placement: Placement
) -> LoadedFallback:
    """The model of ``source``; an UnsupportedModelError says why it cannot run correctly."""
    probed = probe(source)
    hf_model, report = _with_weights(source, config, placement)
    _choose_experts(hf_model)
    num_bytes = weight_bytes(hf_model)
    check = Check(hf_model, probed.facts.vocab_size, placement)
    model = TransformersModel(hf_model, probed, placement)
    check.require(model, source.architecture)
    return LoadedFallback(model=model, weight_bytes=num_bytes, report=report)


def _with_weights(
    source: ModelSource, config: EngineConfig, placement: Placement
) -> tuple[PreTrainedModel, LoadReport]:
    load = config.load
    if load.load_format == "dummy":
        nothing = LoadReport(bytes_read=0, unused=())
        return dummy_model(source, placement.device, config.model.seed), nothing
    checkpoint = open_checkpoint(config.model.path, load.load_format)
    return load_model(source, checkpoint, placement.device, use_tqdm=load.use_tqdm)


def _choose_experts(model: PreTrainedModel) -> None:
    """Compute experts one by one unless their rows are multiples of 16 bytes, which transformers'
    kernel for all experts at once needs."""
    stacked = [weight for weight in model.parameters() if weight.ndim == _NUM_DIMS_OF_EXPERTS]
    if any(size * weight.itemsize % _LINE for weight in stacked for size in weight.shape[1:]):
        model.set_experts_implementation("eager")
