"""Interpreted where there is no GPU."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import torch
from benchmarks.gpu_parts.read_kernel import read_all
device = "cuda" if torch.cuda.is_available() else "cpu"
for num_bytes in (4, 4096 * 16 * 4, 4096 * 16 * 4 + 12, 3 * 4096 * 16 * 4 - 8):
    source = torch.randint(0, 255, (num_bytes,), dtype=torch.uint8, device=device)
    sums = read_all(source)
    wanted = source.view(torch.int32).sum(dtype=torch.int64).item()
    assert (sums.sum(dtype=torch.int64).item() - wanted) % 2**32 == 0, num_bytes
print("every word was read")
"""


def test_every_word_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    root = Path(__file__).parents[3]
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "every word was read" in ended.stdout, ended.stderr
