"""Attention of ragged queries over pages by cuDNN: one graph per shape.

Shapes of a graph are fixed. With dynamic shapes and a kernel cache, results of cuDNN 9.19 (H200)
were right in the first graph of a cache only. Lengths and offsets are read on the device; rows of
length zero only cost programs that end at once. Knows pages, not batches. Works with
`nvidia-cudnn-frontend`; libcudnn itself comes with torch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from quire.attention.backend import AttentionProblem

logger = logging.getLogger(__name__)

_DTYPES = {torch.bfloat16: "BFLOAT16", torch.float16: "HALF"}


class _Operand(IntEnum):
    """The names (cuDNN's uids) of a graph's tensors, by which they are passed when it is run."""

    QUERIES = 1
    KEYS = 2
    VALUES = 3
    OUT = 4
    QUERY_OFFSETS = 5
    OUT_OFFSETS = 6
    QUERY_LENS = 7
    SEQ_LENS = 8
    KEY_TABLE = 9
    VALUE_TABLE = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class RaggedRows:
    """N rows of queries; spare ones at the end have no queries and no keys."""

    start: Tensor  # [N + 1] int64, each row's first token
    query_lens: Tensor  # [N] int32
    seq_lens: Tensor  # [N] int32
    block_table: Tensor  # [N, B] int32, contiguous
    max_query_len: int
    # Token stride -> `start` in values; the layers share them.
    _offsets: dict[int, Tensor] = field(default_factory=dict, init=False, compare=False)

    def offsets(self, token_stride: int) -> Tensor:
        if token_stride not in self._offsets:
            self._offsets[token_stride] = self.start * token_stride
        return self._offsets[token_stride]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shape:
    """The shapes that a graph is built for."""

    num_rows: int
    max_query_len: int
    table_width: int
    token_stride: int  # values from one token's queries to the next one's
    cache: tuple[int, ...]  # [num_blocks, block_size, K, D]
    cache_strides: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Graph:
    graph: Any  # cudnn.pygraph
    workspace: Tensor


class PagedSdpa:
    """Causal attention for one problem, of any of ``row_counts`` rows at a time.

    Graphs for all those counts are built when queries and a cache of a new layout first come, which
    is during the warm-up.
    """

    def __init__(self, problem: AttentionProblem, *, row_counts: Sequence[int]) -> None:
        self._problem = problem
        self._row_counts = row_counts
        self._cudnn = import_module("cudnn")
        self._handle = self._cudnn.create_handle()
        self._graphs: dict[_Shape, _Graph] = {}

    def run(self, out: Tensor, q: Tensor, kv_cache: Tensor, rows: RaggedRows) -> None:
        """Write ``out`` [T, H, D], contiguous; q may be a slice of a wider product."""
        if q.stride()[1:] != (q.shape[2], 1):
            q = q.contiguous()
        keys, values = kv_cache[0], kv_cache[1]
        num_rows, table_width = rows.block_table.shape
        shape = _Shape(
            num_rows=num_rows,
            max_query_len=rows.max_query_len,
            table_width=table_width,
            token_stride=q.stride(0),
            cache=tuple(keys.shape),
            cache_strides=keys.stride(),
        )
        if shape not in self._graphs:
            for count in self._row_counts:
                same = replace(shape, num_rows=count)
                self._graphs[same] = self._build(same)
        graph = self._graphs[shape]
        operands = {
            _Operand.QUERIES: q,
            _Operand.KEYS: keys,
            _Operand.VALUES: values,
            _Operand.OUT: out,
            _Operand.QUERY_OFFSETS: rows.offsets(shape.token_stride),
            _Operand.OUT_OFFSETS: rows.offsets(out.stride(0)),
            _Operand.QUERY_LENS: rows.query_lens,
            _Operand.SEQ_LENS: rows.seq_lens,
            _Operand.KEY_TABLE: rows.block_table,
            _Operand.VALUE_TABLE: rows.block_table,
        }
        self._cudnn.set_stream(self._handle, _stream_of(q.device))
        graph.graph.execute(
            {int(name): tensor for name, tensor in operands.items()},
            graph.workspace,
            handle=self._handle,
        )

    def _build(self, shape: _Shape) -> _Graph:
        begin = time.perf_counter()
        graph = self._describe(shape)
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([self._cudnn.heur_mode.A])
        graph.check_support()
        graph.build_plans()
        num_bytes = max(1, graph.get_workspace_size())
        logger.debug(
            "cuDNN graph for %s, %d bytes of workspace, took %.0f ms",
            shape,
            num_bytes,
            (time.perf_counter() - begin) * 1e3,
        )
        workspace = torch.empty(num_bytes, dtype=torch.uint8, device=self._problem.device)
        return _Graph(graph=graph, workspace=workspace)

    def _describe(self, shape: _Shape) -> Any:
        """The unbuilt graph: one operation, its tensors as [rows, heads, tokens, values]."""
        cudnn, problem = self._cudnn, self._problem
        types, dtype = cudnn.data_type, getattr(cudnn.data_type, _DTYPES[problem.dtype])
        graph = cudnn.pygraph(
            io_data_type=dtype,
            intermediate_data_type=types.FLOAT,
            compute_data_type=types.FLOAT,
            handle=self._handle,
        )

        def tensor(name: _Operand, dims: list[int], strides: list[int], data_type: Any) -> Any:
            return graph.tensor(
                name=name.name.lower(), uid=int(name), dim=dims, stride=strides, data_type=data_type
            )

        def of_rows(name: _Operand, count: int, data_type: Any) -> Any:
            return tensor(name, [count, 1, 1, 1], [1, 1, 1, 1], data_type)

        rows, longest, width = shape.num_rows, shape.max_query_len, shape.table_width
        heads, dim = problem.num_heads, problem.head_dim
        q_strides = [longest * shape.token_stride, dim, shape.token_stride, 1]
        q = tensor(_Operand.QUERIES, [rows, heads, longest, dim], q_strides, dtype)
        q.set_ragged_offset(of_rows(_Operand.QUERY_OFFSETS, rows + 1, types.INT64))
        keys, values = (
            tensor(name, _heads_first(shape.cache), _heads_first(shape.cache_strides), dtype)
            for name in (_Operand.KEYS, _Operand.VALUES)
        )
        key_table, value_table = (
            tensor(name, [rows, 1, width, 1], [width, width, 1, 1], types.INT32)
            for name in (_Operand.KEY_TABLE, _Operand.VALUE_TABLE)
        )
        out, _ = graph.sdpa(
            name="attention",
            q=q,
            k=keys,
            v=values,
            generate_stats=False,
            attn_scale=problem.scale,
            use_padding_mask=True,
            seq_len_q=of_rows(_Operand.QUERY_LENS, rows, types.INT32),
            seq_len_kv=of_rows(_Operand.SEQ_LENS, rows, types.INT32),
            # The last query of a row sees all of its keys, and each the window before its own.
            diagonal_alignment=cudnn.diagonal_alignment.BOTTOM_RIGHT,
            diagonal_band_right_bound=0,
            diagonal_band_left_bound=problem.window,
            paged_attention_k_table=key_table,
            paged_attention_v_table=value_table,
            paged_attention_max_seq_len_kv=width * shape.cache[1],
        )
        token = heads * dim
        out.set_output(True).set_uid(int(_Operand.OUT)).set_data_type(dtype)
        out.set_dim([rows, heads, longest, dim]).set_stride([longest * token, dim, token, 1])
        out.set_ragged_offset(of_rows(_Operand.OUT_OFFSETS, rows + 1, types.INT64))
        return graph


def _heads_first(of_cache: tuple[int, ...]) -> list[int]:
    """Sizes or strides of [blocks, tokens, heads, values] in cuDNN's order, heads before tokens."""
    blocks, tokens, heads, values = of_cache
    return [blocks, heads, tokens, values]


def _stream_of(device: torch.device) -> int:
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
