"""Signal handlers that raise while a model runs in this process: the call ends, nothing else."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from signal import SIGALRM, SIGINT, SIGTERM
from types import FrameType

import pytest
from torch import Tensor

from quire import LLM, SamplingParams
from quire.engine import held_signals
from quire.errors import EngineDeadError

ENDLESS = SamplingParams(max_tokens=2000, ignore_eos=True)
SHORT = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)


def too_slow(number: int, frame: FrameType | None) -> None:
    raise TimeoutError("too slow")


def interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def leave(number: int, frame: FrameType | None) -> None:
    sys.exit(3)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Those of a program, in place of pytest's."""
    timer = signal.setitimer(signal.ITIMER_REAL, 0)
    ours = {SIGALRM: too_slow, SIGINT: interrupt, SIGTERM: leave}
    before = [(number, signal.signal(number, handler)) for number, handler in ours.items()]
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before:
        signal.signal(number, handler)
    signal.setitimer(signal.ITIMER_REAL, *timer)


def make() -> LLM:
    return LLM(device="cpu", dtype="float32", max_model_len=2048, max_num_seqs=32, seed=0)


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with make() as made:
        yield made


def token_ids(llm: LLM) -> list[list[int]]:
    outputs = llm.generate(["a b c", "x y"], SHORT, use_tqdm=False)
    assert [output.outputs[0].error for output in outputs] == [None, None]
    return [list(output.outputs[0].token_ids) for output in outputs]


def require_all_free(llm: LLM) -> None:
    assert llm.llm_engine.get_num_unfinished_requests() == 0
    llm.llm_engine._client._core.check_integrity()  # type: ignore[union-attr]
    assert llm.reset_prefix_cache()
    assert not any(llm.block_map())


@pytest.mark.parametrize("num_prompts", [1, 20])
def test_a_time_limit_ends_the_call(llm: LLM, num_prompts: int) -> None:
    expected = token_ids(llm)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    with pytest.raises(TimeoutError, match="too slow"):
        llm.generate(["a b c"] * num_prompts, ENDLESS, use_tqdm=False)
    require_all_free(llm)
    assert token_ids(llm) == expected


@pytest.mark.parametrize(
    ("number", "error"),
    [(SIGALRM, TimeoutError), (SIGINT, KeyboardInterrupt), (SIGTERM, SystemExit)],
)
def test_a_signal_in_a_step_ends_the_call_and_not_the_engine(
    llm: LLM, number: signal.Signals, error: type[BaseException]
) -> None:
    expected = token_ids(llm)

    def interrupted(output_token_ids: list[int], logits: Tensor) -> Tensor:
        if len(output_token_ids) == 3:
            signal.raise_signal(number)
        return logits

    params = SamplingParams(max_tokens=1500, logits_processors=[interrupted])
    with pytest.raises(error):
        llm.generate("a b c", params, use_tqdm=False)
    require_all_free(llm)
    assert token_ids(llm) == expected


def test_completions_go_on_undamaged_after_every_signal(llm: LLM) -> None:
    expected = token_ids(llm)

    def interrupted(output_token_ids: list[int], logits: Tensor) -> Tensor:
        signal.raise_signal(SIGALRM)
        return logits

    params = SHORT.clone()
    params.logits_processors = [interrupted]
    engine, found, num_errors = llm.llm_engine, {}, 0
    for request_id, prompt in zip("ab", ["a b c", "x y"], strict=True):
        engine.add_request(request_id, prompt, params)
    while engine.has_unfinished_requests():
        try:
            outputs = engine.step()
        except TimeoutError:
            num_errors += 1
            continue
        found.update({output.request_id: output for output in outputs})
    assert [list(found[request_id].outputs[0].token_ids) for request_id in "ab"] == expected
    assert num_errors >= SHORT.max_tokens
    require_all_free(llm)


def test_a_step_that_hangs_is_interrupted_and_ends_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hangs(output_token_ids: list[int], logits: Tensor) -> Tensor:
        signal.raise_signal(SIGALRM)
        while True:
            time.sleep(1)

    monkeypatch.setattr(held_signals, "LONGEST_HOLD_S", 0.0)
    with make() as llm:
        with pytest.raises(TimeoutError, match="too slow"):
            llm.generate("a b c", SamplingParams(logits_processors=[hangs]), use_tqdm=False)
        with pytest.raises(EngineDeadError, match="TimeoutError: too slow"):
            llm.generate("a b c", SHORT, use_tqdm=False)
