from __future__ import annotations

import numpy as np
import torch

from quire.sampling.logits_processor import Selection

ROWS = np.array([7, 2, 5], dtype=np.int32)


def test_selection_names_places_and_rows() -> None:
    selection = Selection.of(np.array([True, False, True]), ROWS, torch.device("cpu"))
    assert selection.positions.tolist() == selection.positions_cpu.tolist() == [0, 2]
    assert selection.rows.tolist() == selection.rows_cpu.tolist() == [7, 5]
    assert selection.take(torch.tensor([10, 11, 12])).tolist() == [10, 12]
    assert len(selection) == 2


def test_taking_all_rows_copies_nothing() -> None:
    selection = Selection.of(np.array([True, True, True]), ROWS, torch.device("cpu"))
    values = torch.arange(3)
    assert selection.take(values) is values
