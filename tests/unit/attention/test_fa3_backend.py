"""The fa3 backend asks FlashAttention 3 for the definition; what it must not ask, it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from quire import platform
from quire.attention import fa3_backend, start_up_check
from quire.attention.fa3_backend import FA3Attention
from quire.attention.start_up_check import Rows, disagreements, make_trial
from tests.fakes import fake_flash_attn
from tests.fakes.attention import Definition, half_problem


@pytest.fixture(params=["flash_attn_interface", "fa3_fwd_interface"])
def installed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_flash_attn.install(monkeypatch, request.param)
    monkeypatch.setattr(platform, "compute_capability", lambda: (9, 0))
    monkeypatch.setattr(start_up_check, "_TILE", 8)


def on_gpu(**options: Any) -> list[str]:
    return FA3Attention.why_not(half_problem(device="cuda", **options))


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("window", "soft_cap"), [(None, None), (20, None), (20, 30.0)])
@pytest.mark.parametrize(
    "rows",
    [
        Rows(name="decode", computed=(0, 15, 16, 90), new=(1, 1, 1, 1)),
        Rows(name="mixed", computed=(18, 90, 0, 21, 90), new=(1, 1, 25, 2, 32)),
    ],
    ids=lambda rows: rows.name,
)
def test_backend_is_the_definition(rows: Rows, window: int | None, soft_cap: float | None) -> None:
    problem = half_problem(window=window, soft_cap=soft_cap)
    trial = make_trial(problem, rows)
    theirs, ours = FA3Attention.build(problem), Definition(problem)
    found = theirs.forward(trial.q, trial.kv_cache, theirs.plan(trial.batch, 0))
    wanted = ours.forward(trial.q, trial.kv_cache, ours.plan(trial.batch, 0))
    torch.testing.assert_close(found, wanted)


@pytest.mark.usefixtures("installed")
def test_a_graph_gives_an_upper_bound_of_the_queries() -> None:
    problem = half_problem()
    rows = Rows(name="graph", computed=(18, 0, 90, 1), new=(1, 9, 2, 0))
    trial = make_trial(problem, rows)
    theirs, ours = FA3Attention.build(problem), Definition(problem)
    batch = replace(trial.batch, is_mixed_graph=True, num_decode_rows=0, max_query_len=12)
    found = theirs.forward(trial.q, trial.kv_cache, theirs.plan(batch, 0))
    wanted = ours.forward(trial.q, trial.kv_cache, ours.plan(trial.batch, 0))
    torch.testing.assert_close(found, wanted)


@pytest.mark.usefixtures("installed")
def test_the_start_up_check_accepts_it() -> None:
    assert disagreements(FA3Attention, Definition, half_problem(window=20, soft_cap=30.0)) == []


@pytest.mark.usefixtures("installed")
def test_what_it_cannot_serve_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_gpu(block_size=8, soft_cap=30.0, window=5) == []
    assert "100 values; it takes multiples of 8 up to 256" in on_gpu(head_dim=100)[0]
    assert "512 values" in on_gpu(head_dim=512)[0]
    assert "ALiBi" in on_gpu(alibi_slopes=(0.5,) * 4)[0]
    assert "not in torch.float32" in on_gpu(dtype=torch.float32)[0]
    assert "the model is on cpu" in FA3Attention.why_not(half_problem())[0]
    monkeypatch.setattr(platform, "compute_capability", lambda: (10, 0))
    assert "compute capability of 8 or 9" in on_gpu()[0]


def test_a_missing_package_comes_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "compute_capability", lambda: (9, 0))
    monkeypatch.setattr(fa3_backend, "find_spec", lambda name: None)
    (reason,) = on_gpu()
    assert reason.startswith("neither flash_attn_interface nor fa3_fwd_interface can be imported")
