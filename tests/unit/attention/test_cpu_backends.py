"""Both backends of a CPU agree with the definition of paged attention, whatever the mix of rows."""

from __future__ import annotations

from typing import Any, TypeAlias

import pytest
import torch

from quire.attention.cpp_backend import CppAttention
from quire.attention.torch_backend import TorchAttention
from tests.fakes.compilers import needs_compiler
from tests.fakes.paged_attention import (
    MIXES,
    OPTIONS,
    attention_problem,
    difference_from_definition,
)

Kind: TypeAlias = "type[CppAttention] | type[TorchAttention]"

pytestmark = pytest.mark.parametrize(
    "kind", [pytest.param(CppAttention, marks=needs_compiler), TorchAttention]
)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("lengths", "num_tokens"), MIXES)
def test_equals_the_definition(
    kind: Kind, options: dict[str, Any], lengths: list[int], num_tokens: list[int]
) -> None:
    assert (
        difference_from_definition(kind, attention_problem(**options), lengths, num_tokens) < 2e-6
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("lengths", "num_tokens"), MIXES)
def test_half_precision_is_close(
    kind: Kind, dtype: torch.dtype, lengths: list[int], num_tokens: list[int]
) -> None:
    assert (
        difference_from_definition(kind, attention_problem(dtype=dtype), lengths, num_tokens) < 0.03
    )
