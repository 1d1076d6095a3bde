"""A module `cudnn` with the graph API that Quire calls: documented meaning, demands asserted.

Written from the signatures and docstrings of nvidia-cudnn-frontend 1.32.
"""

from __future__ import annotations

import math
import sys
from enum import Enum, auto
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from quire.kernels.reference.attention import paged_attention

data_type = Enum("data_type", "BFLOAT16 HALF FLOAT INT32 INT64")
_TORCH = {
    data_type.BFLOAT16: torch.bfloat16,
    data_type.HALF: torch.float16,
    data_type.INT32: torch.int32,
    data_type.INT64: torch.int64,
}


class heur_mode(Enum):
    A = auto()


class diagonal_alignment(Enum):
    BOTTOM_RIGHT = auto()


class FakeCudnn(ModuleType):
    """The module, and what was built with it."""

    def __init__(self) -> None:
        super().__init__("cudnn")
        self.__spec__ = ModuleSpec("cudnn", None)
        self.data_type, self.heur_mode = data_type, heur_mode
        self.diagonal_alignment = diagonal_alignment
        self.graphs: list[Graph] = []

    def create_handle(self) -> object:
        return "handle"

    def set_stream(self, handle: object, stream: int) -> None:
        assert handle == "handle"
        assert isinstance(stream, int)

    def pygraph(self, **options: Any) -> Graph:
        assert options["handle"] == "handle"
        assert "is_dynamic_shape_enabled" not in options, "graphs of 9.19 are wrong with it"
        assert options["intermediate_data_type"] == options["compute_data_type"] == data_type.FLOAT
        self.graphs.append(Graph())
        return self.graphs[-1]


def install(monkeypatch: pytest.MonkeyPatch) -> FakeCudnn:
    """Make `import cudnn` find the fake."""
    module = FakeCudnn()
    monkeypatch.setitem(sys.modules, "cudnn", module)
    return module


class Described:
    """A tensor of a graph."""

    def __init__(self, dim: Any = None, stride: Any = None, kind: Any = None, uid: int = -1):
        self.dim, self.stride, self.data_type, self.uid = dim, stride, kind, uid
        self.is_output = False
        self.offsets: Described | None = None

    def set_output(self, is_output: bool) -> Described:
        self.is_output = is_output
        return self

    def set_uid(self, uid: int) -> Described:
        self.uid = uid
        return self

    def set_data_type(self, kind: Any) -> Described:
        self.data_type = kind
        return self

    def set_dim(self, dim: list[int]) -> Described:
        self.dim = dim
        return self

    def set_stride(self, stride: list[int]) -> Described:
        self.stride = stride
        return self

    def set_ragged_offset(self, offsets: Described) -> Described:
        self.offsets = offsets
        return self


class Graph:
    """`cudnn.pygraph` with one attention operation."""

    def __init__(self) -> None:
        self._given: dict[str, Any] = {}
        self._out = Described()
        self._done: list[str] = []

    def tensor(
        self, *, name: str, uid: int, dim: list[int], stride: list[int], data_type: Any
    ) -> Described:
        assert len(dim) == len(stride) == 4
        assert name
        return Described(dim, stride, data_type, uid)

    def sdpa(self, **given: Any) -> tuple[Described, None]:
        assert given.pop("name")
        assert given["generate_stats"] is False
        assert given["use_padding_mask"] is True
        assert given["diagonal_alignment"] is diagonal_alignment.BOTTOM_RIGHT
        assert given["diagonal_band_right_bound"] == 0
        self._given = given
        return self._out, None

    def validate(self) -> None:
        self._done.append("validate")
        given, out = self._given, self._out
        rows, heads, _, dim = given["q"].dim
        assert out.is_output
        assert out.dim == given["q"].dim
        assert given["q"].stride[3] == out.stride[3] == 1
        assert heads % given["k"].dim[1] == 0
        assert given["k"].dim == given["v"].dim
        assert given["k"].dim[3] == dim
        width = given["paged_attention_k_table"].dim[2]
        page = given["k"].dim[2]
        assert given["paged_attention_max_seq_len_kv"] == width * page
        for name in ("seq_len_q", "seq_len_kv"):
            assert given[name].dim == [rows, 1, 1, 1]
        for ragged in (given["q"], out):
            assert ragged.offsets is not None
            assert ragged.offsets.dim == [rows + 1, 1, 1, 1]

    def build_operation_graph(self) -> None:
        self._done.append("operations")

    def create_execution_plans(self, modes: list[Any]) -> None:
        assert modes == [heur_mode.A]
        self._done.append("plans")

    def check_support(self) -> None:
        self._done.append("support")

    def build_plans(self) -> None:
        self._done.append("build")

    def get_workspace_size(self) -> int:
        return 256

    def execute(self, tensors: dict[int, Tensor], workspace: Tensor, handle: object) -> None:
        assert self._done == ["validate", "operations", "plans", "support", "build"]
        assert handle == "handle"
        assert workspace.nbytes >= 256
        given, out = self._given, self._out
        found = {name: self._bound(tensors, one) for name, one in given.items() if _is_tensor(one)}
        query_lens, seq_lens = found["seq_len_q"], found["seq_len_kv"]
        places = _starts(tensors, given["q"]), _starts(tensors, out)
        scale, window = given["attn_scale"], given["diagonal_band_left_bound"]
        table = found["paged_attention_k_table"]
        assert table.shape == (len(seq_lens), given["paged_attention_k_table"].dim[2])
        for row, (count, length) in enumerate(zip(query_lens, seq_lens, strict=True)):
            if not count:
                continue
            assert count <= given["q"].dim[2]
            here, there = (start[row] for start in places)
            q = tensors[given["q"].uid]
            assert here * given["q"].stride[2] % q.stride(0) == 0
            results = tensors[out.uid][there : there + count]
            results[:] = paged_attention(
                q[here : here + count],
                torch.stack((found["k"], found["v"])),
                table[row : row + 1],
                torch.tensor([0, count]),
                length[None],
                scale=scale,
                window=window,
            )
            # masked keys of the outer tiles are multiplied by zero, which NaN survives
            size = found["v"].shape[1]
            first = (length - count - window + 1) // size if window else 0
            last = (length - 1) // size
            for pages in (slice(max(first - 1, 0), first + 1), slice(last, last + 2)):
                results += 0 * found["v"][table[row, pages]].sum()

    def _bound(self, tensors: dict[int, Tensor], described: Described) -> Tensor:
        """What was given for it, if it is what was described."""
        bound = tensors[described.uid]
        assert all(type(uid) is int for uid in tensors)
        assert bound.dtype == _TORCH[described.data_type]
        if bound.dim() == 4:  # a cache: pages of heads
            assert list(bound.transpose(1, 2).shape) == described.dim
            assert list(bound.transpose(1, 2).stride()) == described.stride
        elif bound.dim() == 3:
            assert list(bound.shape[1:]) == [described.dim[1], described.dim[3]]
            assert list(bound.stride()) == [described.stride[i] for i in (2, 1, 3)]
        else:
            assert bound.numel() == math.prod(described.dim)
            assert bound.is_contiguous()
        return bound


def _is_tensor(given: Any) -> bool:
    return isinstance(given, Described)


def _starts(tensors: dict[int, Tensor], ragged: Described) -> list[int]:
    """Places of rows among tokens."""
    assert ragged.offsets is not None
    offsets = tensors[ragged.offsets.uid]
    assert offsets.dtype == _TORCH[ragged.offsets.data_type]
    assert not (offsets % ragged.stride[2]).any()
    return [int(offset) // ragged.stride[2] for offset in offsets]
