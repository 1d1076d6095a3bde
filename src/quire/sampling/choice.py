"""The protocol of choosing tokens from logits. Knows no way of doing so: `selection.py` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from quire.sampling.logits_processor import LogitsProcessor
from quire.sampling.logprobs import LogprobTensors
from quire.sampling.parameters import RowParameters, SampleKind


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceSample:
    """The new tokens of R rows, on the device."""

    token_ids: Tensor  # [R] int64
    logprobs: LogprobTensors | None = None  # [R]; lines of rows that want none mean nothing


# (logits [R, V] of any float dtype, rows [R] int64, lengths [R] int64) -> the tokens by one kind of
# sampling, without a look at the rows on the host. Logits of early tokens may become -inf.
SampleOnDevice = Callable[[Tensor, Tensor, Tensor], DeviceSample]


class Choice(Protocol):
    """Chooses tokens; shapes: S rows of a step, V vocabulary."""

    on_device: Mapping[SampleKind, SampleOnDevice]  # empty where there are no graphs

    def penalties(self) -> LogitsProcessor: ...

    def forbid(self, logits: Tensor, places_cpu: np.ndarray, masks: np.ndarray) -> None:
        """Set what ``masks`` [N, words] int32 forbid at ``places_cpu`` [N] of ``logits`` [S, V] to
        -inf, in place. Bits are as of `kernels.reference.bitmask`."""
        ...

    def choose(self, logits: Tensor, rows: Tensor, lengths: Tensor, rows_cpu: np.ndarray) -> Tensor:
        """The next tokens [S] int64 by ``logits`` [S, V].

        ``rows_cpu`` is the same object in all steps of the same rows with the same parameters.
        """
        ...

    def token_logprobs(self, logits: Tensor, targets: Tensor, count: int) -> LogprobTensors: ...


MakeChoice = Callable[[RowParameters, int, Tensor], Choice]  # parameters, V, token ids of all rows
