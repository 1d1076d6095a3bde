"""The inputs that graphs read of a step, at fixed places on the device and in every slot.

    |rows, lengths, order: of the rows that sample ...|what else the forward needs ...............|
    |`sampled(bucket)`; for a decode step all it needs |`mixed(tokens)`, or `shared(bucket)`       |

Whatever is sent must be fetched exactly once before the next is sent (see `input_ring`). Places
beyond a step's own rows belong to the spare row. Knows nothing about models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quire.batch import SharedBlocks
from quire.step import Int32, StepPlan
from quire.worker.buckets import GraphSizes
from quire.worker.input_ring import Fetch, InputRing, aligned
from quire.worker.prefix_sharing import SharedRows

TORCH_TYPES = {np.int32: torch.int32, np.int64: torch.int64}

Fields = dict[str, tuple[type[np.integer[Any]], int]]  # name -> (type, length), in memory order


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledInputs:
    rows: Tensor  # [bucket] int64
    lengths: Tensor  # [bucket] int64, number of tokens before the one that is sampled
    order: Tensor  # [bucket] int32, indices of the rows by length, the longest first


@dataclass(frozen=True, kw_only=True, slots=True)
class MixedInputs:
    """Rows in the plan's order; the last one is the spare row, with the spare tokens."""

    rows: Tensor  # [R] int64
    starts: Tensor  # [R] int64, a token's position less its index in the batch
    query_start: Tensor  # [R + 1] int32
    seq_lens: Tensor  # [R] int32
    outputs: Tensor  # [R - 1] int64, last tokens of rows that sample; then one that sees few keys


@dataclass(slots=True)
class _Held:
    """What a slot holds of the decode step last written to it, which need not be written again."""

    rows: tuple[int, bytes] | None = None  # (bucket, the rows as bytes)
    shared: SharedRows | None = None


class GraphInputs:
    """Writes a step's inputs to a slot of the ring, and tells where graphs find them."""

    def __init__(
        self,
        sizes: GraphSizes,
        *,
        spare_row: int,
        max_length: int,
        num_slots: int,
        fetch: Fetch,
        device: torch.device,
    ) -> None:
        """``max_length``: the most tokens of a row in attention, the spare row included."""
        self._spare_row = spare_row
        self._max_length = max_length
        first = _Places(0, _sampled_fields(sizes.max_rows)).end
        sampled = {size: _Places(0, _sampled_fields(size)) for size in sizes.rows}
        shared = {size: _Places(first, _shared_fields(size)) for size in sizes.rows}
        mixed = {size: _Places(first, _mixed_fields(size, sizes)) for size in sizes.tokens}
        self.ring = InputRing(
            num_slots=num_slots,
            num_bytes=max(places.end for places in (*shared.values(), *mixed.values())),
            fetch=fetch,
            device=device,
        )
        self._sampled = {size: _Part(places, self.ring) for size, places in sampled.items()}
        self._shared = {size: _Part(places, self.ring) for size, places in shared.items()}
        self._mixed = {size: _Part(places, self.ring) for size, places in mixed.items()}
        self._held = [_Held() for _ in range(num_slots)]
        self._ordered = b""  # the decode rows that were sent last, as bytes
        self._order: np.ndarray = np.zeros(0, dtype=np.int64)  # their indices, the longest first

    def sampled(self, bucket: int) -> SampledInputs:
        return SampledInputs(**self._sampled[bucket].tensors)

    def shared(self, bucket: int) -> SharedBlocks:
        return SharedBlocks(**self._shared[bucket].tensors)

    def mixed(self, tokens: int) -> MixedInputs:
        return MixedInputs(**self._mixed[tokens].tensors)

    def decode_bytes(self, bucket: int, *, is_shared: bool) -> int:
        """Number of bytes that a decode step fetches."""
        return (self._shared if is_shared else self._sampled)[bucket].end

    def mixed_bytes(self, tokens: int) -> int:
        return self._mixed[tokens].end

    def send_decode(
        self, bucket: int, rows: Int32, lengths: np.ndarray, shared: SharedRows | None
    ) -> None:
        """Send a step of rows with one token each, all of which sample.

        ``lengths`` include that token.
        """
        slot = self.ring.open()
        held, views = self._held[slot], self._sampled[bucket].views[slot]
        num_rows, ids = len(rows), rows.tobytes()
        if held.rows != (bucket, ids):
            self._write_rows(views, rows)
            self._write_order(views, rows, ids, lengths)
            held.rows, held.shared = (bucket, ids), None
        views["lengths"][:num_rows] = lengths
        if shared is not None and held.shared is not shared:
            views = self._shared[bucket].views[slot]
            views["members"][num_rows:] = -1
            views["num_blocks"][num_rows:] = 0
            views["members"][:num_rows], views["num_blocks"][:num_rows] = shared
            held.shared = shared

    def send_mixed(self, tokens: int, bucket: int, plan: StepPlan) -> None:
        """Send a step of any rows; ``bucket`` is that of the rows that sample."""
        slot = self.ring.open()
        self._held[slot] = _Held()
        lengths = plan.num_computed + plan.num_scheduled
        views, sampled_rows = self._sampled[bucket].views[slot], plan.rows[plan.samples]
        self._write_rows(views, sampled_rows)
        views["lengths"][: len(sampled_rows)] = lengths[plan.samples]
        views = self._mixed[tokens].views[slot]
        num_rows = len(plan.rows)
        query_start = views["query_start"]
        query_start[0] = 0
        np.cumsum(plan.num_scheduled, out=query_start[1 : num_rows + 1])
        num_spare = tokens - query_start[num_rows]
        query_start[num_rows + 1 : -1] = query_start[num_rows]
        query_start[-1] = tokens
        views["rows"][:num_rows] = plan.rows
        views["rows"][num_rows:] = self._spare_row
        views["starts"][:num_rows] = plan.num_computed - query_start[:num_rows]
        views["starts"][num_rows:] = -query_start[num_rows]
        views["seq_lens"][:num_rows] = lengths
        views["seq_lens"][num_rows:-1] = 0
        views["seq_lens"][-1] = min(num_spare, self._max_length)
        last_tokens = query_start[1 : num_rows + 1][plan.samples] - 1
        views["outputs"][: len(last_tokens)] = last_tokens
        views["outputs"][len(last_tokens) :] = query_start[_fewest_keys(plan, num_spare)]

    def _write_rows(self, views: dict[str, np.ndarray], rows: Int32) -> None:
        """Write ``rows``, then the spare row; lengths of ``rows`` are left to the caller."""
        views["rows"][: len(rows)] = rows
        views["rows"][len(rows) :] = self._spare_row
        views["lengths"][len(rows) :] = 1

    def _write_order(
        self, views: dict[str, np.ndarray], rows: Int32, ids: bytes, lengths: np.ndarray
    ) -> None:
        """Write the rows' order by length, which stays while the same rows decode."""
        if self._ordered != ids:
            self._ordered, self._order = ids, np.argsort(-lengths, kind="stable")
        order = views["order"]
        order[: len(rows)] = self._order
        order[len(rows) :] = np.arange(len(rows), len(order))


def _fewest_keys(plan: StepPlan, num_spare: int) -> int:
    """The index of the row whose first token sees the fewest keys: the spare row if it has tokens.

    That token fills up the outputs, all of which attention computes.
    """
    return len(plan.rows) if num_spare else int(plan.num_computed.argmin())


class _Places:
    """The byte ranges of fields that lie one behind the other from byte ``first`` on."""

    def __init__(self, first: int, fields: Fields) -> None:
        self.of: dict[str, tuple[type[np.integer[Any]], slice]] = {}
        self.end = first  # the first byte behind them
        for name, (kind, length) in fields.items():
            place = slice(self.end, self.end + length * kind().itemsize)
            self.of[name] = kind, place
            self.end = aligned(place.stop)


class _Part:
    """Views of fields in every slot and on the device, made once: that costs more than writing."""

    def __init__(self, places: _Places, ring: InputRing) -> None:
        self.end = places.end
        self.views = [
            {name: slot[place].view(kind) for name, (kind, place) in places.of.items()}
            for slot in ring.slots
        ]
        self.tensors = {
            name: ring.memory[place].view(TORCH_TYPES[kind])
            for name, (kind, place) in places.of.items()
        }


def _sampled_fields(bucket: int) -> Fields:
    return {"rows": (np.int64, bucket), "lengths": (np.int64, bucket), "order": (np.int32, bucket)}


def _shared_fields(bucket: int) -> Fields:
    return {"members": (np.int32, bucket), "num_blocks": (np.int32, bucket)}


def _mixed_fields(tokens: int, sizes: GraphSizes) -> Fields:
    num_rows = sizes.rows_of(tokens) + 1
    return {
        "rows": (np.int64, num_rows),
        "starts": (np.int64, num_rows),
        "query_start": (np.int32, num_rows + 1),
        "seq_lens": (np.int32, num_rows),
        "outputs": (np.int64, num_rows - 1),
    }
