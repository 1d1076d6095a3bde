"""`model_config` as users of other engines read it: plain attributes, `hf_config` and `dtype`.

The objects of transformers and torch are made from the frozen config on first access.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from quire.config import ModelConfig

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig


class ModelConfigView:
    """A copy of facts: setting an attribute changes nothing in the engine."""

    def __init__(self, config: ModelConfig) -> None:
        self.model = config.model
        self.tokenizer = str(config.tokenizer)
        self.tokenizer_mode = config.tokenizer_mode
        self.trust_remote_code = config.trust_remote_code
        self.revision = config.revision
        self.served_model_name = config.served_model_name
        self.max_model_len = config.max_model_len
        self.max_logprobs = config.max_logprobs
        self.seed = config.seed
        self.architectures = [config.architecture]
        self.quantization = None  # weights are plain numbers once they are loaded
        self.is_multimodal_model = False  # only text is served
        self._config = config

    @functools.cached_property
    def hf_config(self) -> PretrainedConfig:
        """The model's config as transformers' own class, or its base class for a foreign model."""
        import transformers

        values = dict(self._config.hf_config)
        kind = values.pop("model_type", None)
        if kind in transformers.CONFIG_MAPPING:
            return transformers.AutoConfig.for_model(kind, **values)
        return type("ForeignConfig", (transformers.PretrainedConfig,), {"model_type": kind})(
            **values
        )

    @property
    def hf_text_config(self) -> PretrainedConfig:
        """The part of ``hf_config`` that describes the decoder; usually all of it."""
        return self.hf_config.get_text_config(decoder=True)

    @functools.cached_property
    def dtype(self) -> torch.dtype:
        from quire.dtypes import DTYPES

        return DTYPES[self._config.dtype]

    def get_vocab_size(self) -> int:
        return self._config.vocab_size

    def get_hidden_size(self) -> int:
        """The size of the hidden states; ``AttributeError`` if the model's config has none."""
        return int(self.hf_text_config.hidden_size)
