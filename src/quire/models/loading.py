"""From a config to a loaded model, and its weight bytes before any weight is read.

Chooses between the two ways a model can run: built from our own layers by a plan, or through the
modelling code of transformers (`models.fallback`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from quire.config import EngineConfig
from quire.dtypes import DTYPES, cache_dtype_of
from quire.errors import ModelLoadError, UnsupportedModelError
from quire.kernels.cpu import onednn
from quire.kv_layout import KVLayout
from quire.models.decoder import Decoder, Placement
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.registry import ModelRegistry
from quire.models.rope_config import ATTN_FACTOR, join_rope_spellings
from quire.models.source import Implementation, ModelFacts, ModelSource
from quire.models.spec import DecoderSpec
from quire.plugins import load_plugins
from quire.weights.checkpoint import Checkpoint, open_checkpoint
from quire.weights.reader import DummyReader, LoadReport, TensorReader, WeightReader
from quire.weights.weight_map import StackedExperts

if TYPE_CHECKING:
    from quire.models.fallback.model import TransformersModel

logger = logging.getLogger(__name__)

# What `model_impl` may be; users of vLLM call ours by its name.
_IMPLEMENTATIONS = ("auto", "quire", "vllm", "transformers")
_HEEDED: dict[Implementation, str] = {
    "quire": "multiplies cos and sin, as the model's authors mean it; transformers ignores it",
    "transformers": "is ignored by transformers' code, and heeded by Quire's own",
}
_GATES, _FUSED_GATES = "layers.*.moe.experts.gate.weight", "mlp.experts.gate_up_proj"
_CACHE_SCALES = (".k_scale", ".v_scale", ".kv_scale")
_NUM_SHOWN = 5  # unused tensors that the log names


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """A model that is ready to run."""

    model: Decoder | TransformersModel
    kv_layout: KVLayout
    weight_bytes: int  # in the memory of the device
    report: LoadReport
    # Width of the hidden states that CUDA graphs keep; None: steps cannot be captured.
    captured_hidden_size: int | None


def choose_implementation(wanted: str, architecture: str) -> Implementation:
    """Quire's own if it has the architecture, unless ``wanted`` says otherwise; logs a fallback."""
    if wanted not in _IMPLEMENTATIONS:
        raise ValueError(f"model_impl={wanted!r} is not one of {', '.join(_IMPLEMENTATIONS)}")
    is_known = architecture in ModelRegistry
    if wanted in ("quire", "vllm") or (wanted == "auto" and is_known):
        return "quire"
    why = "as model_impl says" if is_known else "which has no implementation in Quire"
    logger.info(
        "%s, %s, runs through the modelling code of transformers with paged attention: correct, "
        "not fast",
        architecture,
        why,
    )
    return "transformers"


def facts_of(source: ModelSource, device: str) -> ModelFacts:
    """The model's facts, without weights; an UnsupportedModelError says why it cannot run."""
    if source.impl == "transformers":
        return _probed_facts(source)
    plan = plan_of(source.hf_config, source.architecture)
    positions = plan.spec.embedding.positions
    return ModelFacts(
        kv_layout=plan.spec.kv_layout,
        vocab_size=plan.spec.head.vocab_size,
        num_parameters=plan.spec.num_parameters,
        weight_bytes=weight_bytes(plan, DTYPES[source.dtype], device),
        num_learned_positions=positions.num_positions if positions else None,
    )


def build_model(config: EngineConfig) -> LoadedModel:
    """Build the model of ``config`` and read its weights; errors name the key or the tensor."""
    load_plugins()  # a worker process has not called resolve(), which does this
    source = ModelSource.of(config.model)
    _note_attn_factor(source)
    placement = Placement(
        dtype=DTYPES[config.model.dtype],
        device=torch.device(config.device.device),
        attention_backend=config.device.attention_backend,
        max_model_len=config.model.max_model_len,
        block_size=config.cache.block_size,
        cache_dtype=cache_dtype_of(config.cache),
    )
    build = _build_fallback if source.impl == "transformers" else _build_decoder
    loaded = build(source, config, placement)
    for warning in _about_unused(config, loaded.report.unused):
        logger.warning("%s", warning)
    return loaded


def plan_of(hf_config: Mapping[str, Any], architecture: str) -> ModelPlan:
    """The plan of an architecture and its config.json; needs no weights."""
    return ModelRegistry.plan(architecture, HFConfig(hf_config, architecture))


def weight_bytes(plan: ModelPlan, dtype: torch.dtype, device: str) -> int:
    """The weight bytes that `build_model` will report, from the plan alone.

    Where matrix products need packed weights (oneDNN), a tied head is a copy of the embedding.
    """
    shapes = plan.parameter_shapes()
    num_values = sum(math.prod(shape) for shape in shapes.values())
    if plan.spec.head.tied and not onednn.why_not(device, dtype):
        num_values += math.prod(shapes["embedding.weight"])
    return num_values * dtype.itemsize


def check_weights(plan: ModelPlan, checkpoint: Checkpoint) -> None:
    """Compare the shapes that the files name with the plan; a ModelLoadError names the tensor."""
    _refuse_fused_experts(plan, checkpoint)
    reader = WeightReader(checkpoint, plan.weights, torch.float32)
    if plan.spec.head.tied:
        reader.stand_in("head.weight", missing="embedding.weight")
    for name, shape in plan.parameter_shapes().items():
        reader.check(name, shape)


def _refuse_fused_experts(plan: ModelPlan, checkpoint: Checkpoint) -> None:
    """Refuse experts stored as transformers 5 holds them in memory; its code can load them."""
    is_split = isinstance(plan.weights.entries.get(_GATES), StackedExperts)
    if is_split and any(name.endswith(_FUSED_GATES) for name in checkpoint.names()):
        raise ModelLoadError(
            "the checkpoint holds all experts of a layer in one tensor, as transformers saves them "
            "with save_original_format=False; load it with model_impl='transformers', or save it "
            "without that argument"
        )


def _note_attn_factor(source: ModelSource) -> None:
    old, new = (source.hf_config.get(key) or {} for key in ("rope_scaling", "rope_parameters"))
    factor = join_rope_spellings(new, old).get(ATTN_FACTOR)
    if factor not in (None, 1):
        logger.info("%s = %s of rotary positions %s", ATTN_FACTOR, factor, _HEEDED[source.impl])


def _build_decoder(source: ModelSource, config: EngineConfig, placement: Placement) -> LoadedModel:
    plan = plan_of(source.hf_config, source.architecture)
    stored = _reader(config, plan, placement)
    model = Decoder(_as_stored(plan.spec, stored), placement)
    reader = CountingReader(stored)
    model.load(reader)
    return LoadedModel(
        model=model,
        kv_layout=model.kv_layout,
        weight_bytes=reader.num_bytes + model.head.copied_bytes,
        report=reader.report(),
        captured_hidden_size=plan.spec.head.hidden_size,
    )


def _as_stored(spec: DecoderSpec, reader: WeightReader | DummyReader) -> DecoderSpec:
    """``spec``, untied if the checkpoint holds a head that differs from the embedding although the
    config ties them (as in transformers). A head stored without an embedding serves as both."""
    if not spec.head.tied:
        return spec
    reader.stand_in("head.weight", missing="embedding.weight")
    own_head = reader.name_if_other("head.weight", "embedding.weight")
    if own_head is None:
        return spec
    logger.warning(
        "the config ties the head to the embedding, but the checkpoint holds %s with other values, "
        "which are used; set tie_word_embeddings to false in config.json",
        own_head,
    )
    return replace(spec, head=replace(spec.head, tied=False))


def _build_fallback(source: ModelSource, config: EngineConfig, placement: Placement) -> LoadedModel:
    from quire.models.fallback.build import build_fallback

    loaded = build_fallback(source, config, placement)
    return LoadedModel(
        model=loaded.model,
        kv_layout=loaded.model.kv_layout,
        weight_bytes=loaded.weight_bytes,
        report=loaded.report,
        captured_hidden_size=None,  # foreign code may wait for the device, which graphs cannot
    )


def _probed_facts(source: ModelSource) -> ModelFacts:
    from quire.models.fallback.probe import probe

    try:
        return probe(source).facts
    except UnsupportedModelError as error:
        if source.architecture in ModelRegistry:
            raise
        unknown = ModelRegistry.about_unknown(source.architecture)
        raise UnsupportedModelError(f"{error}; {unknown}") from error


def _about_unused(config: EngineConfig, names: tuple[str, ...]) -> Iterator[str]:
    """Warnings. Scales of an fp8 KV cache are missed only by those who want such a cache."""
    scales = [name for name in names if name.endswith(_CACHE_SCALES)]
    others = [name for name in names if not name.endswith(_CACHE_SCALES)]
    if scales and config.cache.cache_dtype != "auto":
        yield (
            f"the {len(scales)} scales of an fp8 KV cache in {config.model.path} are not applied: "
            f"{_some_of(scales)}; if answers suffer, leave kv_cache_dtype at 'auto'"
        )
    if others:
        yield (
            f"{len(others)} tensors in {config.model.path} are not used by "
            f"{config.model.architecture}: {_some_of(others)}; if they belong to the model, its "
            "config.json names the wrong architecture"
        )


def _some_of(names: Sequence[str]) -> str:
    return ", ".join(names[:_NUM_SHOWN]) + (", ..." if len(names) > _NUM_SHOWN else "")


class CountingReader:
    """Wraps a reader and counts the bytes of the tensors it returned."""

    def __init__(self, reader: TensorReader) -> None:
        self._reader = reader
        self.device = reader.device
        self.num_bytes = 0

    def read(
        self, name: str, shape: tuple[int, ...], *, dtype: torch.dtype | None = None
    ) -> Tensor:
        tensor = self._reader.read(name, shape, dtype=dtype)
        self.num_bytes += tensor.nbytes
        return tensor

    def report(self) -> LoadReport:
        return self._reader.report()


def _reader(
    config: EngineConfig, plan: ModelPlan, placement: Placement
) -> WeightReader | DummyReader:
    load = config.load
    if load.load_format == "dummy":
        return DummyReader(placement.dtype, placement.device, config.model.seed)
    checkpoint = open_checkpoint(config.model.path, load.load_format)
    _refuse_fused_experts(plan, checkpoint)
    return WeightReader(
        checkpoint,
        plan.weights,
        placement.dtype,
        placement.device,
        use_tqdm=load.use_tqdm,
    )
