"""A causal model of transformers in two parts: the backbone, and what makes logits of its result.

Logits come from the model's own forward, whatever it does besides the product (scales, caps): its
backbone is replaced by one that returns its input.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from quire.errors import UnsupportedModelError


class Parts:
    """Takes ``model`` apart, which must not be used otherwise from then on."""

    def __init__(self, model: PreTrainedModel) -> None:
        name = model.base_model_prefix
        if model.base_model is model:
            raise UnsupportedModelError(
                f"{type(model).__name__} has no backbone apart from its head, which transformers "
                f"would call {name!r}"
            )
        self._backbone = model.base_model
        setattr(model, name, _HandsOn())
        self._model = model

    def hidden(self, input_ids: Tensor, positions: Tensor, **more: Any) -> Tensor:
        """Hidden states [T, E] of ids and positions [T], passed as one sequence."""
        output = self._backbone(
            input_ids=input_ids[None], position_ids=positions[None], use_cache=False, **more
        )
        hidden: Tensor = output.last_hidden_state[0]
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [S, V] of hidden states [S, E]."""
        logits: Tensor = self._model(inputs_embeds=hidden[None], use_cache=False).logits[0]
        return logits


class _Handed(BaseModelOutputWithPastAndCrossAttentions):
    """A backbone's result; all that a head may read besides the hidden states is None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("_"):  # asked for by Python and its libraries
            raise AttributeError(name)


class _HandsOn(torch.nn.Module):
    @property
    def decoder(self) -> _HandsOn:
        """The part of the backbone that OPT's head calls."""
        return self

    def forward(self, *unused: Any, inputs_embeds: Tensor, **also_unused: Any) -> _Handed:
        return _Handed(last_hidden_state=inputs_embeds)
