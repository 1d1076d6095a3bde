"""The step-driven engine, with a core that repeats the prompt."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import zmq
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from quire.args import AsyncEngineArgs, EngineArgs
from quire.config import SchedulerConfig
from quire.engine import llm_engine
from quire.engine.async_engine import AsyncLLM
from quire.engine.llm_engine import LLMEngine, refuse_stat_loggers
from quire.errors import EngineDeadError
from quire.lora.request import LoRARequest
from quire.outputs import RequestOutput
from quire.sampling_params import (
    BeamSearchParams,
    RequestOutputKind,
    SamplingParams,
    StructuredOutputsParams,
)
from tests.fakes.byte_tokenizer import VOCAB_SIZE
from tests.fakes.configs import fake_config
from tests.fakes.fake_core import BUILD_FAKE_CORE, FAIL_ALONE, FAIL_STEP, REFUSE

ENDLESS = 10**9  # tokens


@pytest.fixture
def engine() -> Iterator[LLMEngine]:
    """Without a tokenizer: token ids in and out."""
    made = LLMEngine(fake_config(), build=BUILD_FAKE_CORE)
    yield made
    made.close()


@pytest.fixture(params=[False, True], ids=["inproc", "process"])
def text_engine(request: pytest.FixtureRequest, byte_tokenizer: Path) -> Iterator[LLMEngine]:
    config = fake_config(folder=byte_tokenizer, skip_tokenizer_init=False, vocab_size=VOCAB_SIZE)
    made = LLMEngine(config, multiprocess_mode=request.param, build=BUILD_FAKE_CORE)
    yield made
    made.close()


def run(engine: LLMEngine) -> dict[str, list[RequestOutput]]:
    outputs: dict[str, list[RequestOutput]] = {}
    while engine.has_unfinished_requests():
        for output in engine.step():
            outputs.setdefault(output.request_id, []).append(output)
    return outputs


def test_outputs_are_cumulative_text(text_engine: LLMEngine) -> None:
    text_engine.add_request("a", "xyz", SamplingParams(max_tokens=4))
    texts = [output.outputs[0].text for output in run(text_engine)["a"]]
    assert texts[-1] == "xyzx"
    assert all("xyzx".startswith(text) for text in texts)


def test_stop_string_ends_the_completion_in_the_core(text_engine: LLMEngine) -> None:
    text_engine.add_request("a", "abcdef", SamplingParams(max_tokens=50, stop=["de"]))
    final = run(text_engine)["a"][-1].outputs[0]
    assert (final.text, final.finish_reason, final.stop_reason) == ("abc", "stop", "de")
    assert text_engine.stats().num_running == 0


def test_half_characters_are_not_shown(text_engine: LLMEngine) -> None:
    text_engine.add_request("a", "Größe 大", SamplingParams(max_tokens=11))
    texts = [output.outputs[0].text for output in run(text_engine)["a"]]
    assert texts[-1] == "Größe 大"
    assert not any("\ufffd" in text for text in texts)


def test_delta_outputs_concatenate(text_engine: LLMEngine) -> None:
    params = SamplingParams(max_tokens=6, output_kind=RequestOutputKind.DELTA)
    text_engine.add_request("a", "xyz", params)
    assert "".join(output.outputs[0].text for output in run(text_engine)["a"]) == "xyzxyz"


def test_final_only_gives_one_output(text_engine: LLMEngine) -> None:
    params = SamplingParams(max_tokens=6, output_kind=RequestOutputKind.FINAL_ONLY, n=2)
    text_engine.add_request("a", "xyz", params)
    (output,) = run(text_engine)["a"]
    assert output.finished
    assert [completion.text for completion in output.outputs] == ["xyzxyz", "yzxyzx"]


def test_older_positional_form_takes_token_ids_fourth(engine: LLMEngine) -> None:
    engine.add_request("a", None, SamplingParams(max_tokens=3), [5, 6])
    final = run(engine)["a"][-1]
    assert final.prompt is None
    assert final.prompt_token_ids == [5, 6]
    assert list(final.outputs[0].token_ids) == [5, 6, 5]


@pytest.mark.parametrize(
    ("prompt", "rest", "named"),
    [
        (None, ([5, 6], None), {"lora_request": None}),
        (None, ([5, 6], 12.5, None, None), {}),
        (None, ([5, 6],), {"arrival_time": 12.5, "multi_modal_data": None}),
        ([5, 6], (None, 12.5), {}),
        ([5, 6], (None, None), {"lora_request": None}),
        ([5, 6], (12.5, None), {"trace_headers": None}),  # today's order
    ],
)
def test_arguments_after_the_parameters_may_be_in_the_older_order(
    engine: LLMEngine, prompt: list[int] | None, rest: tuple[object, ...], named: dict[str, object]
) -> None:
    engine.add_request("a", prompt, SamplingParams(max_tokens=3), *rest, **named)
    final = run(engine)["a"][-1]
    assert list(final.outputs[0].token_ids) == [5, 6, 5]
    assert (final.metrics.arrival_time == 12.5) is (12.5 in (*rest, *named.values()))


def test_older_order_refuses_what_is_not_built(engine: LLMEngine) -> None:
    adapter = LoRARequest("style", 1, "/adapters/style")
    with pytest.raises(ValueError, match="lora_request cannot be used"):
        engine.add_request("a", None, SamplingParams(), [5], None, adapter)
    with pytest.raises(ValueError, match="multi_modal_data cannot be used"):
        engine.add_request("a", None, SamplingParams(), [5], None, None, {"image": 1})
    with pytest.raises(TypeError, match="pass the others by name"):
        engine.add_request("a", None, SamplingParams(), [5], None, None, None, 3)


def test_without_parameters_a_request_gets_the_models(text_engine: LLMEngine) -> None:
    text_engine.add_request("a", "xyz", None)
    assert run(text_engine)["a"][-1].outputs[0].text == "xyz" * 5 + "x"  # 16 tokens
    with pytest.raises(ValueError, match=r"got \{'n': 2\} \(dict\); write SamplingParams\("):
        text_engine.add_request("a", "xyz", {"n": 2})


def test_prompt_dict_with_empty_media_is_served(engine: LLMEngine) -> None:
    prompt = {"prompt_token_ids": [5, 6], "multi_modal_data": None}
    engine.add_request("a", prompt, SamplingParams(max_tokens=1), lora_request=None)
    assert list(run(engine)["a"][-1].outputs[0].token_ids) == [5]


def test_prompt_text_is_what_the_output_shows_for_token_ids(engine: LLMEngine) -> None:
    engine.add_request("a", [5, 6], SamplingParams(max_tokens=1), prompt_text="five six")
    assert run(engine)["a"][-1].prompt == "five six"
    with pytest.raises(ValueError, match="prompt_text goes with token ids"):
        engine.add_request("a", "five six", SamplingParams(), prompt_text="five six")


def test_priority_needs_the_policy(engine: LLMEngine) -> None:
    with pytest.raises(ValueError, match=r'priority=1 .* scheduling_policy="priority"'):
        engine.add_request("a", [5], SamplingParams(), priority=1)
    config = dataclasses.replace(fake_config(), scheduler=SchedulerConfig(policy="priority"))
    other = LLMEngine(config, build=BUILD_FAKE_CORE)
    other.add_request("a", [5], SamplingParams(max_tokens=1), priority=1)
    assert run(other)["a"][-1].finished
    other.close()


@pytest.mark.parametrize(
    "name", ["lora_request", "trace_headers", "session_id", "kv_hints", "tokenization_kwargs"]
)
def test_what_nothing_would_heed_is_refused_by_name(engine: LLMEngine, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} cannot be used"):
        engine.add_request("a", [5], SamplingParams(), **{name: {"x": "y"}})
    with pytest.raises(ValueError, match="reset_running_requests cannot be used"):
        engine.reset_prefix_cache(reset_running_requests=True)


def test_id_in_use_is_refused_at_once(engine: LLMEngine) -> None:
    engine.add_request("a", [5], SamplingParams(max_tokens=2))
    with pytest.raises(ValueError, match="'a' is in use"):
        engine.add_request("a", [6], SamplingParams())
    assert list(run(engine)["a"][-1].outputs[0].token_ids) == [5, 5]
    engine.add_request("a", [7], SamplingParams(max_tokens=1))
    assert list(run(engine)["a"][-1].outputs[0].token_ids) == [7]


def test_aborted_request_gives_no_more_output(engine: LLMEngine) -> None:
    engine.add_request("a", [5], SamplingParams(max_tokens=40))
    engine.add_request("b", [6], SamplingParams(max_tokens=2))
    engine.step()
    engine.abort_request("a")
    engine.abort_request(["never added"])
    assert engine.get_num_unfinished_requests() == 1
    assert set(run(engine)) == {"b"}
    assert engine.stats().num_running == 0


def test_refused_request_leaves_no_trace(engine: LLMEngine) -> None:
    with pytest.raises(ValueError, match="refused by the core"):
        engine.add_request("a", [REFUSE], SamplingParams())
    assert not engine.has_unfinished_requests()
    engine.add_request("a", [5], SamplingParams(max_tokens=1))
    assert "a" in run(engine)


def test_failing_request_ends_alone(engine: LLMEngine) -> None:
    engine.add_request("bad", [FAIL_ALONE], SamplingParams())
    engine.add_request("good", [5], SamplingParams(max_tokens=2))
    outputs = run(engine)
    bad = outputs["bad"][-1].outputs[0]
    assert (bad.finish_reason, bad.error) == ("error", "this request failed")
    assert outputs["good"][-1].outputs[0].finish_reason == "length"


def test_dead_engine_says_why(engine: LLMEngine) -> None:
    engine.add_request("a", [FAIL_STEP], SamplingParams())
    with pytest.raises(EngineDeadError, match="on fire"):
        engine.step()
    with pytest.raises(EngineDeadError, match="on fire"):
        engine.add_request("b", [5], SamplingParams())
    engine.abort_request("a")
    assert not engine.has_unfinished_requests()


def test_a_closed_engine_refuses_grammars_as_it_refuses_the_rest(text_engine: LLMEngine) -> None:
    text_engine.close()
    choice = SamplingParams(structured_outputs=StructuredOutputsParams(choice=["a", "b"]))
    for params in (SamplingParams(), choice):
        with pytest.raises(EngineDeadError, match="The engine was closed; make a new one"):
            text_engine.add_request("a", "xyz", params)


def test_beam_search_runs_as_one_request(engine: LLMEngine) -> None:
    engine.add_request("a", [5, 6], BeamSearchParams(beam_width=2, max_tokens=3))
    final = run(engine)["a"][-1]
    assert final.finished
    assert [beam.score for beam in final.outputs] == [-1.0, -2.0]


@pytest.mark.parametrize("name", ["lora_request", "tokenization_kwargs"])
def test_what_is_not_built_is_refused_by_name(engine: LLMEngine, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        engine.add_request("a", [5], SamplingParams(), **{name: {"x": 1}})


@pytest.fixture(params=[signal.SIGINT, signal.SIGALRM, signal.SIGTERM])
def raising(request: pytest.FixtureRequest) -> Iterator[tuple[signal.Signals, type[BaseException]]]:
    """A signal and what its handler raises: Python's own, a time limit, the end of a program."""
    errors = {signal.SIGALRM: TimeoutError, signal.SIGTERM: SystemExit}
    before = signal.getsignal(request.param)

    def handler(number: int, frame: object) -> None:
        raise errors[signal.Signals(number)]

    if request.param in errors:
        signal.signal(request.param, handler)
    yield request.param, errors.get(request.param, KeyboardInterrupt)
    signal.signal(request.param, before)


def test_signals_wait_for_the_step_and_lose_nothing(
    engine: LLMEngine,
    monkeypatch: pytest.MonkeyPatch,
    raising: tuple[signal.Signals, type[BaseException]],
) -> None:
    number, error = raising
    handler = signal.getsignal(number)
    engine.add_request("a", [5, 6], SamplingParams(max_tokens=2))
    receive = engine._client.receive

    def interrupted() -> object:
        signal.raise_signal(number)
        return receive()

    monkeypatch.setattr(engine._client, "receive", interrupted)
    for expected in ([5], [5, 6]):
        with pytest.raises(error):
            engine.step()
        monkeypatch.setattr(engine._client, "receive", lambda: [])
        (output,) = engine.step()
        assert list(output.outputs[0].token_ids) == expected
        monkeypatch.setattr(engine._client, "receive", interrupted)
    assert signal.getsignal(number) is handler


def test_signals_wait_until_a_step_has_begun(
    engine: LLMEngine,
    monkeypatch: pytest.MonkeyPatch,
    raising: tuple[signal.Signals, type[BaseException]],
) -> None:
    number, error = raising
    core = engine._client._core  # type: ignore[union-attr]
    begin = core.begin

    def interrupted() -> None:
        signal.raise_signal(number)
        begin()

    engine.add_request("a", [5, 6], SamplingParams(max_tokens=2))
    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr(core, "begin", interrupted)
        engine.begin()
    assert core.begun_with == [1]
    assert run(engine)["a"][-1].outputs[0].token_ids == [5, 6]


@pytest.mark.parametrize("at", ["observer", "send", "sent"])
def test_signals_while_a_request_is_queued_or_aborted_leave_nothing_half_done(
    engine: LLMEngine,
    monkeypatch: pytest.MonkeyPatch,
    at: str,
    raising: tuple[signal.Signals, type[BaseException]],
) -> None:
    number, error = raising
    owner, name = engine._client, "send"
    if at == "observer":
        owner, name = engine.front.outputs.observer, "request_started"  # type: ignore[assignment]
    real = getattr(owner, name)

    def interrupted(given: object) -> None:
        if at != "sent":
            signal.raise_signal(number)
        real(given)
        if at == "sent":
            signal.raise_signal(number)

    def known() -> tuple[int, int]:
        return engine.get_num_unfinished_requests(), engine.stats().num_running

    params = SamplingParams(max_tokens=2)
    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr(owner, name, interrupted)
        engine.add_request("a", [5, 6], params)
    assert known() == (0, 0)
    engine.add_request("a", [5, 6], params)
    assert known() == (1, 1)
    if at != "observer":
        with monkeypatch.context() as patch, pytest.raises(error):
            patch.setattr(owner, name, interrupted)
            engine.abort_request("a")
        assert known() == (0, 0)


def test_ctrl_c_ends_waiting_for_a_core_in_another_process_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = fake_config(max_model_len=2 * ENDLESS)
    engine = LLMEngine(config, multiprocess_mode=True, build=BUILD_FAKE_CORE)
    quiet = SamplingParams(max_tokens=ENDLESS, output_kind=RequestOutputKind.FINAL_ONLY)
    engine.add_request("a", [5], quiet)
    main = threading.main_thread().ident
    assert main is not None
    interrupt = threading.Thread(target=signal.pthread_kill, args=(main, signal.SIGINT))

    class InterruptedPoller(zmq.Poller):
        def poll(self, timeout: int | None = None) -> Any:
            interrupt.start()
            return super().poll(timeout)

    end = threading.Timer(20, os.kill, (engine._client.pid, signal.SIGKILL))  # type: ignore[union-attr]
    end.start()  # of a test that would wait for ever
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(zmq, "Poller", InterruptedPoller)
        engine.step()
    end.cancel()
    engine.abort_request("a")
    engine.add_request("b", [5, 6], SamplingParams(max_tokens=3))
    assert run(engine)["b"][-1].outputs[0].token_ids == [5, 6, 5]
    assert engine.stats().num_running == 0
    engine.close()


def test_outputs_may_be_changed_while_their_request_runs(engine: LLMEngine) -> None:
    engine.add_request("a", [5, 6], SamplingParams(max_tokens=7, n=2))
    while engine.has_unfinished_requests():
        (output,) = engine.step()
        output.prompt_token_ids += [9]
    assert [list(one.token_ids) for one in output.outputs] == [
        [5, 6, 5, 6, 5, 6, 5],
        [6, 5, 6, 5, 6, 5, 6],
    ]


@pytest.mark.parametrize("multiprocess", [False, True])
def test_waiting_says_whether_a_step_has_something_to_tell(multiprocess: bool) -> None:
    engine = LLMEngine(fake_config(), multiprocess_mode=multiprocess, build=BUILD_FAKE_CORE)
    assert engine.wait()  # there is nothing to wait for
    engine.add_request("a", [5], SamplingParams(max_tokens=2))
    while engine.has_unfinished_requests():
        assert engine.wait()
        assert engine.step()
    engine.close()


def test_waiting_ends_with_its_time_or_with_the_core() -> None:
    config = fake_config(max_model_len=2 * ENDLESS)
    engine = LLMEngine(config, multiprocess_mode=True, build=BUILD_FAKE_CORE)
    quiet = SamplingParams(max_tokens=ENDLESS, output_kind=RequestOutputKind.FINAL_ONLY)
    engine.add_request("a", [5], quiet)
    assert not engine.wait(0.0)
    os.kill(engine._client.pid, signal.SIGKILL)  # type: ignore[union-attr]
    assert engine.wait()
    with pytest.raises(EngineDeadError, match="SIGKILL"):
        engine.step()
    engine.close()


@pytest.mark.parametrize("owner", [LLMEngine, AsyncLLM])
def test_a_constructor_that_is_not_built_says_so(owner: type) -> None:
    message = rf"^{owner.__name__}\.from_vllm_config is not built yet: use from_engine_args"
    with pytest.raises(AttributeError, match=message):
        owner.from_vllm_config  # type: ignore[attr-defined]  # noqa: B018


def test_model_config_is_where_programs_for_vllm_look(engine: LLMEngine) -> None:
    assert engine.get_model_config() is engine.model_config
    assert engine.vllm_config.model_config is engine.model_config
    with pytest.raises(AttributeError, match=r"^vllm_config\.cache_config is not built yet"):
        engine.vllm_config.cache_config  # type: ignore[attr-defined]  # noqa: B018
    for part in ("model", "cache", "scheduler", "load", "device"):  # as the message says
        assert hasattr(engine.config, part)


def test_model_config_reads_as_other_engines_do(engine: LLMEngine) -> None:
    assert engine.model_config.max_model_len == 64
    assert engine.model_config.dtype is torch.float32
    assert engine.model_config.hf_config.model_type == "llama"
    assert engine.model_config.hf_config.vocab_size == 1000
    engine.model_dir = "/somewhere"  # new attributes are welcome


def test_unknown_model_type_has_a_plain_hf_config() -> None:
    config = fake_config(hf_config={"model_type": "never-heard-of", "some_size": 7})
    engine = LLMEngine(config, build=BUILD_FAKE_CORE)
    assert engine.model_config.hf_config.model_type == "never-heard-of"
    assert engine.model_config.hf_config.some_size == 7


def test_tokenizer_has_all_forms(text_engine: LLMEngine, byte_tokenizer: Path) -> None:
    tokenizer = text_engine.tokenizer
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    assert isinstance(tokenizer.tokenizer, PreTrainedTokenizerBase)
    assert len(tokenizer) == VOCAB_SIZE
    assert tokenizer.encode("a") == text_engine.get_tokenizer().encode("a")
    other = AutoTokenizer.from_pretrained(byte_tokenizer)
    text_engine.tokenizer.tokenizer = other
    assert text_engine.get_tokenizer() is other
    third = AutoTokenizer.from_pretrained(byte_tokenizer)
    text_engine.tokenizer = third
    assert text_engine.get_tokenizer() is third


def test_tokenizer_cannot_change_under_a_request(text_engine: LLMEngine) -> None:
    text_engine.add_request("a", "abc", SamplingParams(max_tokens=3))
    with pytest.raises(ValueError, match="1 requests run"):
        text_engine.tokenizer = text_engine.get_tokenizer()


def test_engine_without_tokenizer_says_so(engine: LLMEngine) -> None:
    assert engine.tokenizer is None
    with pytest.raises(ValueError, match="skip_tokenizer_init"):
        engine.get_tokenizer()
    with pytest.raises(ValueError, match="skip_tokenizer_init"):
        engine.add_request("a", "text", SamplingParams())


def test_default_parameters_come_from_the_generation_config() -> None:
    generation = {"temperature": 0.5, "top_k": 7, "max_new_tokens": 99, "eos_token_id": 3}
    engine = LLMEngine(fake_config(generation_config=generation), build=BUILD_FAKE_CORE)
    params = engine.get_default_sampling_params()
    assert (params.temperature, params.top_k, params.max_tokens) == (0.5, 7, 99)
    assert params.top_p == 1.0
    engine.add_request("a", [5], None)
    assert len(run(engine)["a"][-1].outputs[0].token_ids) == 63  # 99, but the context holds 64


def test_generation_config_that_is_not_heeded_is_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    generation = {"typical_p": 0.5, "num_beams": 4, "do_sample": False, "penalty_alpha": None}
    engine = LLMEngine(fake_config(generation_config=generation), build=BUILD_FAKE_CORE)
    engine.get_default_sampling_params()
    (record,) = [one for one in caplog.records if one.levelname == "WARNING"]
    assert record.getMessage().endswith(": typical_p=0.5, num_beams=4")


def test_arrival_time_is_now_unless_given(engine: LLMEngine) -> None:
    before = time.time()
    engine.add_request("a", [5], SamplingParams(max_tokens=1))
    engine.add_request("b", [5], SamplingParams(max_tokens=1), 12.5)
    outputs = run(engine)
    assert before <= outputs["a"][-1].metrics.arrival_time <= time.time()
    assert outputs["b"][-1].metrics.arrival_time == 12.5


def test_a_method_that_is_not_built_says_so(engine: LLMEngine) -> None:
    with pytest.raises(
        AttributeError, match=r"^LLMEngine\.add_lora is not built yet: LoRA adapters"
    ):
        engine.add_lora  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        engine.nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_stat_loggers_are_refused_before_anything_is_loaded() -> None:
    for given in ([print], {"mine": print}):
        with pytest.raises(ValueError, match=r"^stat_loggers cannot be .* stats\(\) or the /m"):
            LLMEngine.from_engine_args(EngineArgs(), stat_loggers=given)
        with pytest.raises(ValueError, match=r"^stat_loggers cannot be used"):
            AsyncLLM.from_engine_args(AsyncEngineArgs(), stat_loggers=given)
    for given in (None, [], {}):
        refuse_stat_loggers(given)


_LEAVES = """
import sys, threading, time
from quire import LLM, SamplingParams

llm = LLM(max_model_len=512)
params = SamplingParams(max_tokens=400, ignore_eos=True)


def generate():
    llm.generate(["a"] * 50, params)


def read():
    for output in llm.stream("a", params):
        pass


for target in (generate, read):
    threading.Thread(target=target, daemon=True).start()
time.sleep(0.3)
sys.exit(3)
"""


def test_a_program_may_end_while_a_daemon_thread_generates() -> None:
    done = subprocess.run([sys.executable, "-c", _LEAVES], capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr


def test_at_the_end_of_the_program_only_the_thread_that_ends_it_steps(engine: LLMEngine) -> None:
    engine.add_request("a", {"prompt_token_ids": [1]}, SamplingParams(max_tokens=2))
    ended: list[bool] = []

    def step_in_thread() -> None:
        try:
            engine.step()
        except SystemExit:
            ended.append(True)

    engine._gate.close()
    thread = threading.Thread(target=step_in_thread)
    thread.start()
    thread.join()
    assert ended == [True]
    assert [len(output.outputs[0].token_ids) for output in run(engine)["a"]] == [1, 2]


def test_the_end_of_the_program_waits_for_a_step_but_not_for_ever(
    engine: LLMEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, may_end = threading.Event(), threading.Event()

    def step() -> None:
        with engine._gate:
            inside.set()
            may_end.wait()

    thread = threading.Thread(target=step)
    thread.start()
    inside.wait()
    monkeypatch.setattr(llm_engine, "_LAST_STEP_S", 0.05)
    engine._gate.close()
    assert thread.is_alive()
    monkeypatch.setattr(llm_engine, "_LAST_STEP_S", 30.0)
    threading.Timer(0.05, may_end.set).start()
    engine._gate.close()
    thread.join(1)
    assert not thread.is_alive()
    monkeypatch.setattr(os, "getpid", lambda: -1)  # a fork of this process
    engine._gate.close()
