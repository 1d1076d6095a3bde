"""TransformersModel: what the worker runs for architectures that Quire does not implement."""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from quire.batch import Batch
from quire.models.decoder import Placement
from quire.models.fallback.attention import PagedAttention
from quire.models.fallback.interface import connect
from quire.models.fallback.parts import Parts
from quire.models.fallback.probe import Probed


class TransformersModel:
    """A loaded transformers model whose attention layers call paged attention."""

    def __init__(self, model: PreTrainedModel, probed: Probed, placement: Placement) -> None:
        self._attention = PagedAttention(probed, placement)
        connect(model, self._attention)
        self._parts = Parts(model)
        self.kv_layout = probed.kv_layout
        self.attention_backend = self._attention.backend_name

    def forward(self, batch: Batch) -> Tensor:
        """Hidden states [S, E] of `batch.outputs` after the final norm; writes the keys and values
        of all tokens."""
        with self._attention.serving(batch):
            hidden = self._parts.hidden(batch.input_ids, batch.positions)
        return batch.lines_of_outputs(hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [S, V] of hidden states [S, E], in the model's dtype or in float32."""
        return self._parts.logits(hidden)

    def best_tokens(self, hidden: Tensor) -> None:
        """Only `logits` tell: the head may do anything."""
