"""A backend is chosen by name; what it cannot do is said."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
import torch

from quire import compat, platform
from quire.attention.backend import AttentionProblem, PlanOfNext
from quire.attention.fa3_backend import FA3Attention
from quire.attention.packages import PACKAGES
from quire.attention.selection import BACKENDS, Backends, select_backends
from quire.attention.start_up_check import TrialStep, make_trial
from quire.attention.torch_backend import TorchAttention
from quire.attention.triton_backend import TritonAttention, TritonPlan
from tests.fakes import fake_flash_attn, fake_flashinfer
from tests.fakes.attention import half_problem


def _problem(num_kv_heads: int) -> AttentionProblem:
    return AttentionProblem(
        num_heads=4,
        num_kv_heads=num_kv_heads,
        head_dim=8,
        scale=1.0,
        dtype=torch.float32,
        device="cpu",
    )


def test_named_backend_is_found() -> None:
    chosen = select_backends("torch", [_problem(2)])
    assert str(chosen) == "torch"
    assert isinstance(chosen.build(_problem(2)), TorchAttention)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'banana' is not known; choose one of: cpp"):
        select_backends("banana", [])


def test_refusal_gives_the_reason_once() -> None:
    with pytest.raises(ValueError, match="4 heads do not share 3 KV heads evenly") as error:
        select_backends("torch", [_problem(2), _problem(3), _problem(3)])
    assert str(error.value).count("evenly") == 1


def test_every_backend_is_a_name_of_the_command_line() -> None:
    assert {"auto", *BACKENDS} == set(compat.ATTENTION_BACKENDS)
    assert PACKAGES.keys() < BACKENDS.keys()


@pytest.fixture
def fa3_on_hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_flash_attn.install(monkeypatch)
    monkeypatch.setattr(platform, "compute_capability", lambda: (9, 0))


@pytest.mark.usefixtures("fa3_on_hopper")
def test_a_backend_of_another_package_is_checked_on_every_problem() -> None:
    problems = [half_problem(device="cuda", window=window) for window in (None, 8, 8)]
    checked = []

    def check(theirs: type, ours: type, problem: AttentionProblem) -> list[str]:
        checked.append((theirs.__name__, ours, problem.window))
        return []

    assert str(select_backends("fa3", problems, check)) == "fa3,triton"
    wanted = [("FA3Attention", TritonAttention, window) for window in (None, 8)]
    assert checked == wanted
    assert str(select_backends("triton", problems, check)) == "triton"
    assert checked == wanted, "our own kernel needs no check"


@pytest.mark.usefixtures("fa3_on_hopper")
def test_a_named_backend_that_fails_its_check_is_an_error() -> None:
    with pytest.raises(ValueError, match="'fa3' cannot serve this model: it is off by 3; choose"):
        select_backends("fa3", [half_problem(device="cuda")], lambda *_: ["it is off by 3"])


@pytest.mark.usefixtures("fa3_on_hopper")
def test_a_preferred_backend_that_fails_is_passed_over_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    problems = [half_problem(device="cuda", window=window) for window in (None, 8)]
    with caplog.at_level(logging.WARNING, logger="quire"):
        chosen = select_backends("fa3,triton", problems, lambda *_: ["it is off by 3"])
    assert str(chosen) == "triton"
    assert [record.getMessage() for record in caplog.records] == [
        "attention backend 'fa3' is not used: it is off by 3"
    ]


@pytest.mark.usefixtures("fa3_on_hopper")
def test_each_is_for_what_those_before_it_leave() -> None:
    chosen = select_backends("fa3,triton,torch", [half_problem(device="cuda")], lambda *_: [])
    assert str(chosen) == "fa3,triton", (
        "all after one that takes every row would have nothing to do"
    )
    backend = Backends(chosen.names).build(half_problem())
    assert isinstance(backend, FA3Attention)
    rows = TrialStep(name="decode rows", computed=(3, 70), new=(1, 1))
    plan = backend.plan(make_trial(half_problem(), rows).batch, 0)
    assert isinstance(plan, PlanOfNext)
    assert isinstance(plan.plan, TritonPlan)


@pytest.mark.usefixtures("fa3_on_hopper")
def test_flashinfer_leaves_no_prompts_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_flashinfer.install(monkeypatch)
    problems = [half_problem(device="cuda")]
    for names, wanted in (("flashinfer,fa3,triton", "flashinfer"), ("fa3,flashinfer",) * 2):
        assert str(select_backends(names, problems, lambda *_: [])) == wanted


@pytest.mark.usefixtures("fa3_on_hopper")
def test_one_for_long_prompts_need_not_serve_every_layer(caplog: pytest.LogCaptureFixture) -> None:
    full, windowed = half_problem(device="cuda"), half_problem(device="cuda", window=8)

    def check(theirs: type, ours: type, problem: AttentionProblem) -> list[str]:
        return [] if problem.window is None else ["it takes no windows"]

    with caplog.at_level(logging.WARNING, logger="quire"):
        chosen = select_backends("fa3", [windowed, full], check)
    assert not caplog.records
    assert str(chosen) == "fa3,triton"
    assert chosen.refused == {("fa3", windowed)}


@pytest.mark.usefixtures("fa3_on_hopper")
def test_what_none_can_serve_is_an_error_of_the_last() -> None:
    beyond = half_problem(device="cuda", head_dim=512)
    with pytest.raises(ValueError, match=r"'triton' cannot serve this model: .*512"):
        select_backends("fa3,triton", [beyond], lambda *_: [])


def test_what_cannot_be_asked_is_not_tried() -> None:
    def check(*_: object) -> list[str]:
        raise AssertionError("tried")

    for name in ("flashinfer", "fa3"):
        with pytest.raises(ValueError, match=f"'{name}' cannot serve .* the model is on cpu"):
            select_backends(name, [half_problem()], check)


def test_packages_of_others_are_not_imported_unless_chosen() -> None:
    code = (
        "import sys\n"
        "from quire.attention.selection import select_backends\n"
        "from quire.attention import cudnn_backend, fa3_backend, flashinfer_backend\n"
        "select_backends('torch', [])\n"
        "theirs = {'flashinfer', 'flash_attn_interface', 'fa3_fwd_interface', 'cudnn'}\n"
        "assert not theirs & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_what_is_chosen_without_being_named_ends_with_our_own_kernels() -> None:
    from quire.config import DEVICE_DEFAULTS

    for one in DEVICE_DEFAULTS.values():
        assert one.attention_backend.split(",")[-1] in BACKENDS.keys() - PACKAGES.keys()
