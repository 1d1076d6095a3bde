"""What a checkpoint was read as, against what transformers reads it as."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from quire.models.loading import LoadedModel
from tests.fakes.batches import FakeRows

_TOKENS = list(range(3, 28))


def assert_whole_and_equal(loaded: LoadedModel, reference: PreTrainedModel) -> None:
    """No tensor is left, and the logits in float32 are those of ``reference``."""
    assert loaded.report.unused == ()
    batch, _ = FakeRows(loaded.kv_layout, [_TOKENS]).batch({0: len(_TOKENS)})
    with torch.inference_mode():
        got = loaded.model.logits(loaded.model.forward(batch))
        expected = reference(torch.tensor([_TOKENS])).logits[0]
    assert (got - expected).abs().max() < 2e-4 * expected.abs().max()
