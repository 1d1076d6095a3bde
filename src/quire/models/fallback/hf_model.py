"""The classes of transformers that a model folder asks for, and the model without its weights.

The only module that decides whether code of a model's repository is run. Knows nothing about
attention or files of weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from quire.dtypes import DTYPES
from quire.errors import UnsupportedModelError
from quire.models.source import ModelSource

# Types of layers that keep no state but keys and values.
_ATTENTION_LAYERS = frozenset({"full_attention", "sliding_attention"})


def model_class(source: ModelSource) -> type[PreTrainedModel]:
    """The class of ``source``: from transformers, or else from the repository if trusted."""
    name = source.architecture
    if name in _causal_names():
        return getattr(transformers, name)
    remote = _auto_map(source).get("AutoModelForCausalLM")
    if remote is None:
        raise UnsupportedModelError(_why_no_class(source))
    return _remote_class(source, remote)


def causal_name(model_type: object) -> str | None:
    """The name of transformers' causal language model for ``model_type``, if it has one."""
    return MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(str(model_type))


def model_config(source: ModelSource) -> PreTrainedConfig:
    """``config.json`` as an instance of its config class."""
    kind = str(source.hf_config.get("model_type"))
    if kind in CONFIG_MAPPING and source.architecture in _causal_names():
        config_class = CONFIG_MAPPING[kind]
        _refuse_config_of_others(source, kind)
    else:
        remote = _auto_map(source).get("AutoConfig")
        if remote is None:
            raise UnsupportedModelError(
                f"transformers {transformers.__version__} knows no model_type {kind!r} "
                f"({source.architecture})"
            )
        config_class = _remote_class(source, remote)
    try:
        return config_class.from_dict(_plain(source.hf_config))
    # Each config class checks its values with errors of its own.
    except Exception as error:
        raise UnsupportedModelError(
            f"{config_class.__name__} of transformers does not accept this config.json: {error}"
        ) from error


def build_empty(
    source: ModelSource, device: torch.device, **implementations: str
) -> PreTrainedModel:
    """The model with untrained weights on ``device``; on "meta" it takes no memory."""
    _refuse_encoder(source, _has_encoder(source.hf_config))  # has no class here
    cls = model_class(source)
    config = model_config(source)
    if "chunked_attention" in _layer_types(config):
        raise UnsupportedModelError(
            f"{source.architecture} has chunked attention, which paged attention does not support"
        )
    if cls._is_stateful and not _attends_only(config):
        raise UnsupportedModelError(
            f"{source.architecture} keeps a recurrent state from token to token, which the KV "
            "cache cannot hold"
        )
    _refuse_encoder(source, config.is_encoder_decoder)
    with torch.device(device):
        model = cls._from_config(config, dtype=DTYPES[source.dtype], **implementations)
    model.tie_weights()
    return model.eval()


def _attends_only(config: PreTrainedConfig) -> bool:
    """Whether a class that can build recurrent layers builds none of them for this config."""
    return set() != _layer_types(config) <= _ATTENTION_LAYERS


def _layer_types(config: PreTrainedConfig) -> set[str]:
    return set(getattr(config.get_text_config(), "layer_types", None) or ())


def _refuse_config_of_others(source: ModelSource, kind: str) -> None:
    """Refuse a class of transformers whose config class is not that of model_type ``kind``: the
    defaults of absent keys would be another family's. transformers pairs a few such itself."""
    own = model_class(source).config_class
    if own is None or own is CONFIG_MAPPING[kind] or source.architecture == causal_name(kind):
        return
    raise UnsupportedModelError(
        f"{source.architecture} of transformers goes with model_type {own.model_type!r}, and "
        f"config.json says {kind!r}; if the weights are those of {source.architecture}, say so "
        f"with --hf-overrides '{json.dumps({'model_type': own.model_type})}'"
    )


def _refuse_encoder(source: ModelSource, has_one: object) -> None:
    if has_one:
        raise UnsupportedModelError(
            f"{source.architecture} is an encoder-decoder, and only decoders are served"
        )


def _has_encoder(config: Mapping[str, Any]) -> bool:
    """Whether the config, or else its class's default, says that it is an encoder-decoder."""
    kind = str(config.get("model_type"))
    silent = CONFIG_MAPPING[kind].is_encoder_decoder if kind in CONFIG_MAPPING else False
    return bool(config.get("is_encoder_decoder", silent))


def _why_no_class(source: ModelSource) -> str:
    name, causal = source.architecture, causal_name(source.hf_config.get("model_type"))
    if name not in dir(transformers):
        return (
            f"transformers {transformers.__version__} has no causal language model {name!r}, and "
            "the model's repository brings no code of its own; if a newer transformers has it, "
            "upgrade"
        )
    if causal is None:
        return f"{name} of transformers generates no text, and Quire serves models that do"
    return (
        f"{name} of transformers generates no text; if the weights are those of a language model, "
        f"say so with --hf-overrides '{json.dumps({'architectures': [causal]})}'"
    )


def _plain(value: Any) -> Any:
    """``value`` with infinities and NaN, which transformers writes as objects, as floats."""
    if isinstance(value, Mapping):
        if value.keys() == {"__float__"}:
            return float(value["__float__"])
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _causal_names() -> frozenset[str]:
    names: set[str] = set()
    for value in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        names.update([value] if isinstance(value, str) else value)
    return frozenset(names)


def _auto_map(source: ModelSource) -> dict[str, str]:
    return source.hf_config.get("auto_map") or {}


def _remote_class(source: ModelSource, reference: str) -> Any:
    if not source.trust_remote_code:
        raise UnsupportedModelError(
            f"{source.architecture} is not in transformers {transformers.__version__}; its "
            f"repository brings Python code ({reference}), which runs only with "
            "trust_remote_code (--trust-remote-code)"
        )
    return get_class_from_dynamic_module(reference, str(source.path))
