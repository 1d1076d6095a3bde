"""Composition of the fallback: probe, weights, take-over, check."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedFallback:
    """A model that has passed the check."""

    model: TransformersModel
    weight_bytes: int
    report: LoadReport


def build_fallback(
    source: ModelSource, config: EngineConfig, placement: Placement
) -> LoadedFallback:
    """The model of ``source``; errors say why it cannot be right."""
    probed = probe(source)
    hf_model, report = _with_weights(source, config, placement)
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
        nothing = LoadReport(num_read=0, bytes_read=0, unused=())
        return dummy_model(source, placement.device, config.model.seed), nothing
    checkpoint = open_checkpoint(config.model.path, load.load_format)
    return load_model(source, checkpoint, placement.device, use_tqdm=load.use_tqdm)
