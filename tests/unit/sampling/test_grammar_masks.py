"""Masks of constrained rows, where rows are sampled by operation, on either kind of device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from quire.request import RowSampling
from quire.sampling.choice import MakeChoice
from quire.sampling.device_choice import DeviceChoice
from quire.sampling.grammar_masks import MaskSource
from quire.sampling.host_choice import HostChoice
from quire.structured import Constraint, Thinking
from tests.unit.kernels.twins import DEVICE
from tests.unit.sampling.harness import CPU, Rows

VOCAB_SIZE = 70  # three words, the last of them in part
GREEDY = RowSampling(temperature=0.0)
CONSTRAINED = Constraint(thinking=Thinking(begins=(), ends=(), is_open=False))
ON_DEVICES = pytest.mark.parametrize(
    ("make_choice", "device"), [(HostChoice, CPU), (DeviceChoice, DEVICE)]
)


class Masks(MaskSource):
    """Row -> the tokens that it may have; rows that are not named have no mask in this step."""

    num_words = -(-VOCAB_SIZE // 32)

    def __init__(self, allowed: dict[int, set[int]]) -> None:
        self.allowed = allowed

    def fill(self, rows_cpu: np.ndarray, masks: np.ndarray) -> np.ndarray:
        masked = [place for place, row in enumerate(rows_cpu.tolist()) if row in self.allowed]
        masks[:] = 0
        for line, place in zip(masks.view(np.uint32), masked, strict=False):
            for token in self.allowed[int(rows_cpu[place])]:
                line[token // 32] |= np.uint32(1 << token % 32)
        return np.array(masked, dtype=np.int64)

    def errors(self, rows_cpu: np.ndarray) -> dict[int, str]:
        return {row: "nothing left" for row in rows_cpu.tolist() if self.allowed.get(row) == set()}


def rows_of(masks: Masks, make_choice: MakeChoice, device: torch.device) -> Rows:
    """Five greedy rows, of which the third is free."""
    rows = Rows(VOCAB_SIZE, make_choice=make_choice, device=device, masks=masks)
    for row in range(5):
        constraint = {} if row == 2 else {"constraint": CONSTRAINED}
        rows.join(row, GREEDY, **constraint)
    return rows


def rising(num_rows: int, device: torch.device) -> Tensor:
    """The higher a token's id, the likelier."""
    return torch.arange(float(VOCAB_SIZE), device=device).repeat(num_rows, 1)


@ON_DEVICES
def test_each_row_has_its_best_allowed_token(make_choice: MakeChoice, device: torch.device) -> None:
    masks = Masks({4: {0, 31, 32}, 1: {63, 64, 68}, 0: {31}})  # 3 has no mask in this step
    rows = rows_of(masks, make_choice, device)
    sampled = rows.sample(rising(5, device), [4, 2, 0, 3, 1])
    assert sampled.token_ids.tolist() == [32, VOCAB_SIZE - 1, 31, VOCAB_SIZE - 1, 68]
    assert sampled.errors == {}


@ON_DEVICES
def test_all_rows_of_a_step_may_have_masks(make_choice: MakeChoice, device: torch.device) -> None:
    rows = rows_of(Masks({0: {5}, 1: {69}}), make_choice, device)
    assert rows.sample(rising(2, device), [1, 0]).token_ids.tolist() == [69, 5]


@ON_DEVICES
def test_masks_change_from_step_to_step(make_choice: MakeChoice, device: torch.device) -> None:
    masks = Masks({0: {5}})
    rows = rows_of(masks, make_choice, device)
    assert rows.sample(rising(2, device), [0, 2]).token_ids.tolist() == [5, VOCAB_SIZE - 1]
    masks.allowed = {}
    assert rows.sample(rising(2, device), [0, 2]).token_ids.tolist() == [VOCAB_SIZE - 1] * 2


@ON_DEVICES
def test_a_row_whose_grammar_cannot_go_on_has_the_reason(
    make_choice: MakeChoice, device: torch.device
) -> None:
    rows = rows_of(Masks({0: set(), 1: {3}}), make_choice, device)
    sampled = rows.sample(rising(3, device), [0, 1, 2])
    assert sampled.errors == {0: "nothing left"}
    assert sampled.token_ids.tolist()[1:] == [3, VOCAB_SIZE - 1]
