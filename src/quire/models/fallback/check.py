"""The check at load: paged attention must not change the logits of a transformers model.

Two short prompts are computed in chunks and batched through a small cache, and compared with each
alone through transformers' eager attention. Ignored positions, biases lost with the mask, state
kept elsewhere, and layers that mix tokens in other ways all show up as a difference.
"""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor
from transformers import PreTrainedModel

from quire.batch import Batch, GroupBatch
from quire.errors import UnsupportedModelError
from quire.kv_layout import KVLayout
from quire.models.decoder import Placement
from quire.models.fallback.interface import OWN, implementation
from quire.models.fallback.model import TransformersModel

logger = logging.getLogger(__name__)

_LENGTHS = (11, 6)
# Per step, the rows that compute and how many tokens; rows of one token come first.
_STEPS = (((0, 7), (1, 5)), ((1, 1), (0, 3)), ((0, 1),))
# Largest relative difference of a token's logits: of the worst token in float32, else of the median
# one, since rounding may route single tokens to other experts.
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}


class Check:
    """Compares a model with reference logits, computed before `Parts` takes the model apart."""

    @torch.inference_mode()
    def __init__(self, model: PreTrainedModel, vocab_size: int, placement: Placement) -> None:
        self._placement = placement
        generator = torch.Generator().manual_seed(0)
        self._rows = [
            torch.randint(vocab_size, (min(length, placement.max_model_len),), generator=generator)
            for length in _LENGTHS
        ]
        with implementation(model, OWN):
            self._expected = [
                model(input_ids=row[None].to(placement.device), use_cache=False).logits[0]
                for row in self._rows
            ]

    @torch.inference_mode()
    def difference(self, model: TransformersModel) -> float:
        """Relative difference (L2 norm) between the logits of ``model`` and the reference."""
        caches = _caches(model.kv_layout, self._placement)
        computed = [0] * len(self._rows)
        shares = []
        for step in _STEPS:
            rows = {row: self._num_tokens(row, count, computed) for row, count in step}
            rows = {row: count for row, count in rows.items() if count}
            if not rows:
                continue
            batch, places = self._batch(rows, computed, model.kv_layout, caches)
            logits = model.logits(model.forward(batch)).float()
            expected = torch.stack([self._expected[row][at] for row, at in places]).float()
            shares.append((logits - expected).norm(dim=1) / expected.norm(dim=1))
            for row, count in rows.items():
                computed[row] += count
        found = torch.cat(shares)
        worst = found.max() if self._placement.dtype == torch.float32 else found.median()
        return float(worst)

    def require(self, model: TransformersModel, architecture: str) -> None:
        """Raise an UnsupportedModelError if ``model`` is off by more than rounding."""
        if any(bool(logits.isnan().any()) for logits in self._expected):
            raise UnsupportedModelError(
                f"the logits of {architecture} are not numbers (NaN) in transformers' own code: "
                "its weights are damaged, or too large for "
                f"dtype={str(self._placement.dtype).removeprefix('torch.')}"
            )
        difference = self.difference(model)
        logger.debug("%s with paged attention is off by %.1e", architecture, difference)
        if math.isnan(difference) or difference > _TOLERANCE[self._placement.dtype]:
            raise UnsupportedModelError(
                f"{architecture} cannot run through transformers with paged attention: its logits "
                f"differ by {difference:.1%} from those of transformers' own attention"
            )

    def _num_tokens(self, row: int, count: int, computed: list[int]) -> int:
        return min(count, len(self._rows[row]) - computed[row])

    def _batch(
        self,
        rows: dict[int, int],
        computed: list[int],
        layout: KVLayout,
        caches: tuple[Tensor, ...],
    ) -> tuple[Batch, list[tuple[int, int]]]:
        """The next ``rows[row]`` tokens of each row, and the (row, position) of every token."""
        device, block_size = self._placement.device, self._placement.block_size
        places = [
            (row, at)
            for row, count in rows.items()
            for at in range(computed[row], computed[row] + count)
        ]
        counts = list(rows.values())
        lengths = torch.tensor([computed[row] + count for row, count in rows.items()]).int()
        query_start = torch.tensor([0, *counts]).cumsum(0).int()
        groups = []
        for group in range(len(layout.groups)):
            table = torch.tensor([_blocks(group, row, block_size) for row in rows])
            owner = torch.arange(len(rows)).repeat_interleave(torch.tensor(counts))
            at = torch.tensor([position for _, position in places])
            slots = table[owner, at // block_size] * block_size + at % block_size
            groups.append(
                GroupBatch(block_table=table.int().to(device), slot_mapping=slots.to(device))
            )
        return Batch(
            input_ids=torch.stack([self._rows[row][at] for row, at in places]).to(device),
            positions=torch.tensor([at for _, at in places], device=device),
            query_start=query_start.to(device),
            seq_lens=lengths.to(device),
            query_start_cpu=query_start,
            seq_lens_cpu=lengths,
            num_decode_rows=counts.count(1),
            max_query_len=max(counts),
            max_seq_len=int(lengths.max()),
            groups=tuple(groups),
            kv_caches=caches,
            layer_groups=layout.group_of_layer,
        ), places


def _blocks(group: int, row: int, block_size: int) -> list[int]:
    """The block ids of a row in a layer group; block 0 is the null block."""
    width = -(-max(_LENGTHS) // block_size)
    first = 1 + (group * len(_LENGTHS) + row) * width
    return list(range(first, first + width))


def _caches(layout: KVLayout, placement: Placement) -> tuple[Tensor, ...]:
    """A KV cache per layer, laid out as the worker's: head-major within a block on CPU only."""
    num_blocks = _blocks(len(layout.groups), 0, placement.block_size)[0]
    tensors = []
    for kv in layout.tensors:
        shape = (2, num_blocks, kv.num_kv_heads, placement.block_size, kv.head_dim)
        by_head = torch.zeros(shape, dtype=placement.dtype, device=placement.device)
        on_cpu = placement.device.type == "cpu"
        tensors.append(by_head.transpose(2, 3) if on_cpu else by_head.transpose(2, 3).contiguous())
    return tuple(tensors[index] for index in layout.tensor_of_layer)
