"""The weights of a transformers model, read by our checkpoint reader and converted by transformers.

Only transformers knows which tensors make up which parameters, and our reader never runs code from
a file. So transformers gets a dictionary whose tensors are read when it accesses them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from quire.dtypes import DTYPES
from quire.errors import ModelLoadError
from quire.models.fallback.hf_model import build_empty, model_class, model_config
from quire.models.fallback.interface import PAGED
from quire.models.source import ModelSource
from quire.weights.checkpoint import Checkpoint, refuse_codes
from quire.weights.reader import LoadReport

_NUM_SHOWN = 5
_BAR_FROM_BYTES = 64 * 2**20  # a smaller load is over before a reader could care


def load_model(
    source: ModelSource, checkpoint: Checkpoint, device: torch.device, *, use_tqdm: bool
) -> tuple[PreTrainedModel, LoadReport]:
    """The model on ``device``; a ModelLoadError names tensors that are missing or do not fit."""
    read: set[str] = set()
    tensors = {
        name: _Stored(checkpoint, name, read, is_own=device.type == "cpu")
        for name in checkpoint.names()
    }
    loader: Any = model_class(source)  # what it returns depends on an argument
    with _quiet(use_tqdm and checkpoint.num_bytes > _BAR_FROM_BYTES):
        try:
            model, info = loader.from_pretrained(
                None,
                config=model_config(source),
                state_dict=tensors,
                dtype=DTYPES[source.dtype],
                attn_implementation=PAGED,
                ignore_mismatched_sizes=True,  # `_check` names them
                output_loading_info=True,
            )
        except RuntimeError as error:
            raise ModelLoadError(
                f"the weights in {source.path} do not fit {source.architecture} of transformers: "
                f"{error}"
            ) from error
    _check(source, info)
    if not source.hf_config.get("quantization_config"):
        _refuse_codes(model, checkpoint, read)
    _restore_padding_rows(model, tensors)
    unused = tuple(sorted(info["unexpected_keys"]))
    report = LoadReport(bytes_read=checkpoint.num_bytes, unused=unused)
    return model.to(device).eval(), report


def dummy_model(source: ModelSource, device: torch.device, seed: int) -> PreTrainedModel:
    """The model with the random weights that its own code initialises it with."""
    on_gpu = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=on_gpu):
        torch.manual_seed(seed)
        return build_empty(source, device, attn_implementation=PAGED)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A tensor of the checkpoint, read when transformers slices it."""

    checkpoint: Checkpoint
    name: str
    read: set[str]  # names of the tensors read so far
    # On a CPU a view of the mapped file would stay in the model, which must outlive the file.
    is_own: bool

    def __getitem__(self, index: Any) -> Tensor:
        self.read.add(self.name)
        tensor = self.checkpoint.read(self.name)[index]
        return tensor.clone() if self.is_own else tensor


def _check(source: ModelSource, info: dict[str, Any]) -> None:
    missing = sorted(info["missing_keys"])
    if missing:
        shown = ", ".join(missing[:_NUM_SHOWN]) + (", ..." if len(missing) > _NUM_SHOWN else "")
        raise ModelLoadError(
            f"the checkpoint in {source.path} lacks {len(missing)} tensors that "
            f"{source.architecture} of transformers needs: {shown}"
        )
    wrong = [
        f"tensor {name} has shape {list(stored)} and the config asks for {list(asked)}"
        for name, stored, asked in sorted(info["mismatched_keys"])
    ]
    wrong += info["error_msgs"]
    if wrong:
        raise ModelLoadError(
            f"the weights in {source.path} do not fit {source.architecture} of transformers: "
            f"{wrong[0]}; config.json and the weights belong to different models"
        )


def _restore_padding_rows(model: PreTrainedModel, tensors: Mapping[str, _Stored]) -> None:
    """Read the embedding of padding tokens again: some code (Youtu's) zeroes it after loading,
    although prompts, and a head that is tied to it, may use it."""
    prefix = f"{model.base_model_prefix}."  # which checkpoints of the backbone alone lack
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Embedding) or module.padding_idx is None:
            continue
        weight = f"{name}.weight"
        stored = tensors.get(weight) or tensors.get(weight.removeprefix(prefix))
        if stored is not None:
            module.weight.data[module.padding_idx] = stored[module.padding_idx]


def _refuse_codes(model: PreTrainedModel, checkpoint: Checkpoint, read: set[str]) -> None:
    """Refuse weights stored in a quantized dtype, such as integers; integer buffers are allowed."""
    buffers = {_last(name) for name, one in model.named_buffers() if not one.is_floating_point()}
    for name in sorted(read):
        if _last(name) not in buffers:
            refuse_codes(name, checkpoint.dtype(name))


def _last(name: str) -> str:
    return name.rpartition(".")[2]


@contextmanager
def _quiet(with_bar: bool) -> Iterator[None]:
    """Silence transformers' load report (`_check` replaces it), and its bar unless ``with_bar``."""
    logging = transformers.utils.logging
    level, had_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    if not with_bar:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if had_bar:
            logging.enable_progress_bar()
