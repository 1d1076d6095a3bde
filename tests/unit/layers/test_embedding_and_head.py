"""Both ends of a decoder, with every option."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from quire.errors import UnsupportedModelError
from quire.layers import head as head_module
from quire.layers.embedding import Embedding
from quire.layers.head import Head
from quire.layers.spec import EmbeddingSpec, HeadSpec, LayerNormSpec, LearnedPositionsSpec
from tests.unit.layers.readers import MemoryReader

_IDS = torch.tensor([3, 0, 3])
_POSITIONS = torch.tensor([0, 4, 2])


def _embedding(spec: EmbeddingSpec, dtype: torch.dtype = torch.float32):  # type: ignore[no-untyped-def]
    reader = MemoryReader.random(spec.parameters(), "embedding", dtype=dtype)
    embedding = Embedding(spec)
    embedding.load(reader, "embedding")
    return embedding, reader.tensors


def test_plain_embedding() -> None:
    embedding, tensors = _embedding(EmbeddingSpec(vocab_size=5, hidden_size=4))
    assert torch.equal(embedding(_IDS, _POSITIONS), tensors["embedding.weight"][_IDS])


def test_scale_is_rounded_to_the_dtype() -> None:
    spec = EmbeddingSpec(vocab_size=5, hidden_size=4, scale=1000**0.5)
    embedding, tensors = _embedding(spec, torch.bfloat16)
    scale = torch.tensor(1000**0.5, dtype=torch.bfloat16)
    assert torch.equal(embedding(_IDS, _POSITIONS), tensors["embedding.weight"][_IDS] * scale)


def test_learned_positions_start_at_the_offset() -> None:
    positions = LearnedPositionsSpec(num_positions=6, offset=2)
    spec = EmbeddingSpec(vocab_size=5, hidden_size=4, positions=positions)
    embedding, tensors = _embedding(spec)
    expected = tensors["embedding.weight"][_IDS]
    expected = expected + tensors["embedding.positions.weight"][_POSITIONS + 2]
    assert torch.equal(embedding(_IDS, _POSITIONS), expected)


def test_embedding_goes_up_takes_its_position_is_scaled_and_normed() -> None:
    spec = EmbeddingSpec(
        vocab_size=5,
        hidden_size=4,
        scale=3.0,
        positions=LearnedPositionsSpec(num_positions=6),
        norm=LayerNormSpec(size=4, eps=1e-2),
        inner_size=2,
    )
    embedding, tensors = _embedding(spec)
    rows = tensors["embedding.weight"][_IDS] @ tensors["embedding.up.weight"].T
    scaled = 3.0 * (rows + tensors["embedding.positions.weight"][_POSITIONS])
    weight, bias = tensors["embedding.norm.weight"], tensors["embedding.norm.bias"]
    expected = F.layer_norm(scaled, (4,), weight, bias, 1e-2)
    torch.testing.assert_close(embedding(_IDS, _POSITIONS), expected)
    assert embedding.weight.shape == (5, 2)


def test_head_goes_down_before_a_tied_weight() -> None:
    embedding, tensors = _embedding(EmbeddingSpec(vocab_size=5, hidden_size=4, inner_size=2))
    spec = HeadSpec(vocab_size=5, hidden_size=4, tied=True, inner_size=2)
    reader = MemoryReader.random(spec.parameters(), "head")
    head = Head(spec)
    head.load(reader, "head", embedding)
    hidden = torch.randn(3, 4)
    expected = hidden @ reader.tensors["head.down.weight"].T @ tensors["embedding.weight"].T
    torch.testing.assert_close(head(hidden), expected)


class SearchOfFew:
    """In place of a GPU's: serves two lines and more."""

    def __init__(self, weight: torch.Tensor) -> None:
        self._weight = weight

    def suits(self, lines: int) -> bool:
        return lines > 1

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self._weight).argmax(dim=1)


@pytest.mark.parametrize(
    ("options", "is_searched"),
    [
        ({}, True),
        ({"inner_size": 2, "scale": 0.25, "unit_rows": True}, True),
        ({"scale": -1.0}, False),
        ({"bias": True}, False),
        ({"soft_cap": 30.0}, False),
    ],
)
def test_the_best_token_without_logits(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], is_searched: bool
) -> None:
    embedding, _ = _embedding(EmbeddingSpec(vocab_size=50, hidden_size=4))
    spec = HeadSpec(vocab_size=50, hidden_size=4, tied=False, **options)
    head = Head(spec)
    head.load(MemoryReader.random(spec.parameters(), "head"), "head", embedding)
    hidden = torch.randn(3, 4)
    assert head.best(hidden) is None  # there is no kernel for it on a CPU
    monkeypatch.setattr(head_module, "best_token", SearchOfFew)
    head.load(MemoryReader.random(spec.parameters(), "head"), "head", embedding)
    best = head.best(hidden)
    assert (best is not None) == is_searched
    if best is not None:
        assert torch.equal(best, head(hidden).argmax(dim=1))
    assert head.best(hidden[:1]) is None


def test_tied_head_has_no_unit_rows() -> None:
    with pytest.raises(UnsupportedModelError, match="ties the head to the embedding"):
        HeadSpec(vocab_size=5, hidden_size=4, tied=True, unit_rows=True)


def test_head_of_unit_rows() -> None:
    embedding, _ = _embedding(EmbeddingSpec(vocab_size=5, hidden_size=4))
    spec = HeadSpec(vocab_size=5, hidden_size=4, tied=False, unit_rows=True)
    reader = MemoryReader.random(spec.parameters(), "head")
    head = Head(spec)
    head.load(reader, "head", embedding)
    weight = reader.tensors["head.weight"]
    lengths = weight.square().sum(1).sqrt()
    hidden = torch.randn(3, 4)
    torch.testing.assert_close(head(hidden), hidden @ weight.T / lengths)


def test_head_applies_bias_then_scale_then_cap_in_float32() -> None:
    embedding, _ = _embedding(EmbeddingSpec(vocab_size=5, hidden_size=4))
    spec = HeadSpec(vocab_size=5, hidden_size=4, tied=False, bias=True, scale=0.5, soft_cap=1.5)
    reader = MemoryReader.random(spec.parameters(), "head")
    head = Head(spec)
    head.load(reader, "head", embedding)
    hidden = torch.randn(3, 4)
    raw = hidden @ reader.tensors["head.weight"].T + reader.tensors["head.bias"]
    logits = head(hidden)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, 1.5 * torch.tanh(0.5 * raw / 1.5))


def test_tied_head_reads_no_weight_and_counts_its_copy() -> None:
    embedding, tensors = _embedding(EmbeddingSpec(vocab_size=5, hidden_size=4), torch.bfloat16)
    head = Head(HeadSpec(vocab_size=5, hidden_size=4, tied=True, scale=2.0))
    head.load(MemoryReader({}), "head", embedding)
    hidden = torch.randn(3, 4).bfloat16()
    expected = (hidden @ tensors["embedding.weight"].T).float() * 2
    torch.testing.assert_close(head(hidden), expected)
    assert head.copied_bytes == 5 * 4 * 2
