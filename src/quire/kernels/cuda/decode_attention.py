"""Attention of rows with one query on Hopper, from the product's q, k and v on, in one launch.

Twins: `reference.norm.rms_norm`, `reference.rope.rotate_half`, `reference.attention.write_kv` and
`reference.attention.paged_attention`, one after another. `availability` tells whether this can be
imported and used.
"""

from __future__ import annotations

import ctypes
import logging
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache, cached_property
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from quire.kernels import hopper
from quire.kernels.cuda.availability import TILE_TOKENS
from quire.kernels.cuda.compiler import compile_later, source_of
from quire.kernels.cuda.launch import Kernel, load
from quire.kernels.rehearsal import is_rehearsal
from quire.kernels.shapes import DecodeRows, HeadsShape

logger = logging.getLogger(__name__)

_BLOCK_BYTES = 1024  # of shared memory that the driver reserves in each block
_ROUNDING = 256  # bytes: what rounding sizes of shared memory up may add
_ANGLE_ROWS = 2  # cos and sin, each as long as the row of a head
_MOST_PARTS = 32  # that the keys of one row are cut into
_ALL_PARTS = 8192  # that the workspace holds: 4 per row and KV head for 256 rows with 8 KV heads


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """How a step's keys are cut into parts, and what computes them."""

    warps: int  # per block
    rounds: int  # a part is about 1 / rounds of a block's share of the keys, `least` or more
    least: int  # keys of a part, about; joining shorter ones takes longer than they save
    stages: int = 2  # tiles per warp that have arrived or are being loaded
    most_blocks: int = 5  # per multiprocessor


# Measured on an H200. FEW: at most one pair of a row and a KV head per multiprocessor.
FEW = Cut(warps=8, rounds=1, least=256)
MANY = Cut(warps=4, rounds=2, least=1024)


@dataclass(frozen=True, kw_only=True, slots=True)
class CompiledFor:
    """The constants that are compiled into one kernel."""

    head: int  # values of a head
    group: int  # query heads per KV head
    kv_heads: int
    block: int  # tokens of a KV block
    has_norms: bool
    is_fp16: bool
    cut: Cut

    @property
    def blocks(self) -> int:
        """How many blocks run on one multiprocessor at once."""
        fit = (hopper.SHARED_BYTES + _BLOCK_BYTES) // self.block_bytes
        return min(fit, self.cut.most_blocks)

    @property
    def block_bytes(self) -> int:
        """Bytes of a multiprocessor's shared memory that one block takes in all."""
        joint_bytes = self.cut.warps * self.group * (self.head + 6) * 4
        weight_bytes = 2 * self.head * 2 * self.has_norms
        return self.shared_bytes + joint_bytes + weight_bytes + _ROUNDING + _BLOCK_BYTES

    @property
    def shared_bytes(self) -> int:
        """Bytes of dynamic shared memory. Each stage of a warp has room for a tile of keys and
        values, and for the queries, new key and value, cos and sin that come with a row."""
        rows = 2 * TILE_TOKENS + self.group + 2 + _ANGLE_ROWS
        return self.cut.warps * self.cut.stages * rows * self.head * 2

    @property
    def defines(self) -> list[str]:
        values = {
            "HEAD": self.head,
            "GROUP": self.group,
            "KV_HEADS": self.kv_heads,
            "BLOCK": self.block,
            "TILE": TILE_TOKENS,
            "HAS_NORMS": int(self.has_norms),
            "IS_FP16": int(self.is_fp16),
            "WARPS": self.cut.warps,
            "STAGES": self.cut.stages,
            "LEAST": self.cut.least,
            "ROUNDS": self.cut.rounds,
            "BLOCKS": self.blocks,
        }
        return [f"{name}={value}" for name, value in values.items()]


class _Inputs(ctypes.Structure):
    """The kernel's one argument, field by field as ``Inputs`` in `decode_attention.cu`."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("qkv", "cos", "sin", "q_weight", "k_weight")),
        *((name, ctypes.c_void_p) for name in ("slots", "block_table", "seq_lens", "order")),
        *((name, ctypes.c_void_p) for name in ("k_cache", "v_cache", "out")),
        *((name, ctypes.c_void_p) for name in ("parts", "stats", "counters")),
        *((name, ctypes.c_uint32) for name in ("rows", "table_width", "most_parts")),
        *((name, ctypes.c_float) for name in ("q_eps", "k_eps", "scale")),
    )


class DecodeAttention:
    """Attention of one layer. Its kernels are compiled in threads; the first use waits for them."""

    def __init__(
        self,
        shape: HeadsShape,
        norms: tuple[Tensor, ...] | None,
        *,
        scale: float,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
        cuts: tuple[Cut, Cut] = (FEW, MANY),
    ) -> None:
        """``norms``: the RMS weights [D] of q and k, in ``dtype``."""
        self._shape, self._norms, self._scale = shape, norms, scale
        self._dtype, self._block_size = dtype, block_size
        self._processors = torch.cuda.get_device_properties(device).multi_processor_count
        self._made_for = tuple(
            CompiledFor(
                head=shape.head_dim,
                group=shape.num_heads // shape.num_kv_heads,
                kv_heads=shape.num_kv_heads,
                block=block_size,
                has_norms=norms is not None,
                is_fp16=dtype == torch.float16,
                cut=cut,
            )
            for cut in cuts
        )
        # made now: memory allocated while a graph is captured would be cleared whenever it runs
        self._workspace = _workspace_of(self._made_for[0].group, shape.head_dim, device)
        for made_for in self._made_for:
            _code_of(made_for)

    @property
    def block_bytes(self) -> int:
        """Bytes of shared memory that one block takes in a step of many rows."""
        return self._made_for[-1].block_bytes

    @cached_property
    def _kernels(self) -> tuple[Kernel | None, ...]:
        """The kernel for few rows, and the one for many; None: it does not work here."""
        return tuple(map(_kernel_of, self._made_for))

    def is_usable(self) -> bool:
        """False where a kernel cannot be compiled or loaded. False in a rehearsal, too, so that it
        compiles the two separate kernels, which decode rows beside a prompt need."""
        return not is_rehearsal() and None not in self._kernels

    def __call__(
        self,
        qkv: Tensor,
        cos: Tensor,
        sin: Tensor,
        kv_cache: Tensor,
        slots: Tensor,
        rows: DecodeRows,
    ) -> Tensor:
        """qkv [R, (H + 2 K) D] -> [R, H, D]; keys and values go to their slots.

        ``cos`` and ``sin`` are float32 [R, 1, D / 2], ``slots`` [R] int64. `rope_angles` must have
        been launched behind all that writes ``rows``.
        """
        table, seq_lens, order = rows.block_table, rows.seq_lens, rows.order
        shape, num_rows = self._shape, len(qkv)
        assert qkv.dtype == kv_cache.dtype == self._dtype and kv_cache.shape[2] == self._block_size
        assert all(one.is_contiguous() for one in (qkv, cos, sin, kv_cache, slots, seq_lens, order))
        assert table.stride(1) == 1 and len(seq_lens) == len(order) == num_rows
        out = qkv.new_empty(num_rows, shape.num_heads, shape.head_dim)
        num_pairs = num_rows * shape.num_kv_heads
        are_many = num_pairs > self._processors
        workspace, blocks = self._workspace, self._made_for[are_many].blocks * self._processors
        most_parts = max(1, min(_MOST_PARTS, _ALL_PARTS // num_pairs))
        q_weight, k_weight = self._norms or (qkv, qkv)
        inputs = _Inputs(
            *(
                tensor.data_ptr()
                for tensor in (
                    *(qkv, cos, sin, q_weight, k_weight, slots, table, seq_lens, order),
                    *(kv_cache[0], kv_cache[1], out),
                    *(workspace.parts, workspace.stats, workspace.counters),
                )
            ),
            *(num_rows, table.stride(0), most_parts, *shape.eps, self._scale),
        )
        kernel = self._kernels[are_many]
        assert kernel is not None  # it is usable
        kernel(min(num_pairs * most_parts, blocks), [inputs])
        return out


@dataclass(frozen=True, kw_only=True)  # without slots: weak references need a place of their own
class _Workspace:
    """Partial sums of rows whose keys are cut into parts. One serves all layers of a model, which
    run one after another; shapes: `decode_attention.cu`."""

    parts: Tensor  # float32
    stats: Tensor  # float32
    counters: Tensor  # int32, zeros between launches


_workspaces: WeakValueDictionary[tuple[int, int, torch.device], _Workspace] = WeakValueDictionary()


def _workspace_of(group: int, head: int, device: torch.device) -> _Workspace:
    """The workspace that layers of this shape share; it lives as long as one of them does."""
    workspace = _workspaces.get((group, head, device))
    if workspace is None:
        workspace = _workspaces[group, head, device] = _new_workspace(group, head, device)
    return workspace


def _new_workspace(group: int, head: int, device: torch.device) -> _Workspace:
    lines = _ALL_PARTS * group
    return _Workspace(
        parts=torch.empty(lines * head, dtype=torch.float32, device=device),
        stats=torch.empty(lines * 2, dtype=torch.float32, device=device),
        counters=torch.zeros(_ALL_PARTS, dtype=torch.int32, device=device),
    )


@cache
def _kernel_of(made_for: CompiledFor) -> Kernel | None:
    """None, and a warning, where it cannot be compiled or loaded; Triton's kernels serve then."""
    try:
        return load(
            _code_of(made_for).result(),
            "decode_attention",
            threads=32 * made_for.cut.warps,
            shared_bytes=made_for.shared_bytes,
        )
    except (RuntimeError, OSError) as error:
        logger.warning("decode steps use slower kernels of attention: %s", error)
        return None


@cache
def _code_of(made_for: CompiledFor) -> Future[bytes]:
    return compile_later(source_of("decode_attention.cu"), made_for.defines)
