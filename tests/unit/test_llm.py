"""LLM's calls, on a core that repeats the prompt."""

from __future__ import annotations

import gc
import inspect
import logging
import operator
import re
import signal
import threading
from collections import UserList, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quire import row_sampling
from quire.args import EngineArgs
from quire.engine.async_engine import AsyncLLM
from quire.engine.llm_engine import LLMEngine
from quire.errors import EngineDeadError, RequestError
from quire.llm import LLM
from quire.lora.request import LoRARequest
from quire.not_built import NOT_BUILT
from quire.outputs import RequestOutput
from quire.sampling_params import BeamSearchParams, RequestOutputKind, SamplingParams
from tests.fakes.byte_tokenizer import VOCAB_SIZE
from tests.fakes.fake_core import FAIL_ALONE
from tests.fakes.llms import llm_on_fake_core


@pytest.fixture
def llm(byte_tokenizer: Path) -> Iterator[LLM]:
    with llm_on_fake_core(byte_tokenizer) as made:
        yield made


def texts(outputs: list[RequestOutput]) -> list[str]:
    return [output.outputs[0].text for output in outputs]


FOUR = SamplingParams(max_tokens=4)


def test_single_prompt_gives_a_list_of_one(llm: LLM) -> None:
    (output,) = llm.generate("abc", FOUR)
    assert (output.prompt, output.outputs[0].text, output.finished) == ("abc", "abca", True)


def test_outputs_are_in_the_order_of_the_prompts(llm: LLM) -> None:
    params = [SamplingParams(max_tokens=count) for count in (9, 1, 5)]
    outputs = llm.generate(["ab", "cd", "ef"], params)
    assert texts(outputs) == ["ababababa", "c", "efefe"]
    assert [output.prompt for output in outputs] == ["ab", "cd", "ef"]


def test_what_reads_like_a_list_is_one(llm: LLM) -> None:
    prompts = UserList(["ab", "cd"])
    params = deque([SamplingParams(max_tokens=1), SamplingParams(max_tokens=2)])
    assert texts(llm.generate(prompts, params)) == ["a", "cd"]
    assert len(llm.beam_search(prompts, BeamSearchParams(beam_width=1, max_tokens=1))) == 2
    messages: Any = UserList([{"role": "user", "content": "Hi"}])
    assert len(llm.chat(messages, FOUR)) == 1
    assert len(llm.chat(UserList([messages, messages]), FOUR)) == 2


def test_no_prompts_give_no_outputs(llm: LLM) -> None:
    assert llm.generate([], FOUR) == []


def test_parameters_default_to_the_generation_config(llm: LLM) -> None:
    assert texts(llm.generate("abc")) == ["ab"]
    assert llm.get_default_sampling_params().max_tokens == 2


def test_parameters_of_the_caller_are_left_alone(llm: LLM) -> None:
    params = SamplingParams(max_tokens=4)
    llm.generate("abc", params)
    assert params.output_kind is RequestOutputKind.CUMULATIVE


def test_neighbours_that_ask_for_the_same_are_checked_once(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[SamplingParams] = []
    real = row_sampling._checked_row
    monkeypatch.setattr(
        row_sampling,
        "_checked_row",
        lambda params, *rest: checked.append(params) or real(params, *rest),
    )
    params = [SamplingParams(max_tokens=length, temperature=0.0) for length in (3, 3, 4, 3, 3)]
    outputs = llm.generate(["one", "two", "three", "four", "five"], params, use_tqdm=False)
    assert [len(output.outputs[0].token_ids) for output in outputs] == [3, 3, 4, 3, 3]
    assert [one.max_tokens for one in checked] == [3, 4, 3]
    assert not any(one is own for one in checked for own in params)


def test_older_prompt_token_ids_have_no_prompt_text(llm: LLM) -> None:
    outputs = llm.generate(prompt_token_ids=[[5, 6], [7]], sampling_params=FOUR)
    assert [list(output.outputs[0].token_ids) for output in outputs] == [[5, 6, 5, 6], [7] * 4]
    assert [output.prompt for output in outputs] == [None, None]


def test_unwatched_requests_take_one_output_each(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    received = 0
    receive = llm.llm_engine._client.receive

    def counting() -> list[object]:
        nonlocal received
        deltas = receive()
        received += len(deltas)
        return deltas

    monkeypatch.setattr(llm.llm_engine._client, "receive", counting)
    llm.generate(["abc", "def"], SamplingParams(max_tokens=30))
    assert received == 2


def test_stop_string_is_found_early(llm: LLM) -> None:
    (output,) = llm.generate("abcd", SamplingParams(max_tokens=60, stop=["cd"]))
    assert (output.outputs[0].text, output.outputs[0].stop_reason) == ("ab", "cd")
    assert llm.stats().num_steps < 10


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ([FOUR], "1 sampling parameters were given for 2 prompts"),
        ([FOUR, SamplingParams(stop_token_ids=[10**6])], "1000000"),
    ],
)
def test_wrong_parameters_reject_the_whole_call(
    llm: LLM, params: list[SamplingParams], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        llm.generate(["ab", "cd"], params)
    assert llm.stats().num_steps == 0
    assert not llm.llm_engine.has_unfinished_requests()


@pytest.mark.parametrize("params", [{"temperature": 0}, 7, "greedy", SamplingParams, [None, FOUR]])
def test_parameters_of_another_type_are_one_clear_error(llm: LLM, params: Any) -> None:
    with pytest.raises(ValueError, match="must be SamplingParams or BeamSearchParams, got "):
        llm.generate(["ab", "cd"], params)


@pytest.mark.parametrize("params", [SamplingParams(), None, {"beam_width": 2}])
def test_beam_search_takes_its_own_parameters_only(llm: LLM, params: Any) -> None:
    with pytest.raises(
        ValueError, match=r"params must be BeamSearchParams, got .*beam_width=\.\.\."
    ):
        llm.beam_search(["ab"], params)


def test_model_that_is_no_name_is_one_clear_error() -> None:
    with pytest.raises(ValueError, match=r"model must be a hub id or a folder, got 42 \(int\)"):
        LLM(42)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["embed", "sleep", "collective_rpc", "renderer", "enqueue"])
def test_method_that_is_not_built_says_so(llm: LLM, name: str) -> None:
    with pytest.raises(AttributeError, match=f"^LLM.{name} is not built yet: "):
        getattr(llm, name)
    assert not hasattr(llm, name)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        llm.nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_table_of_methods_that_are_not_built_holds_none_that_is() -> None:
    names = [name for group in NOT_BUILT.values() for name in group]
    assert len(names) == len(set(names))
    for owner in (LLM, LLMEngine, AsyncLLM):
        assert not [name for name in names if hasattr(owner, name)]


def test_reasons_name_only_what_there_is(llm: LLM) -> None:
    owners = {"LLM": llm, "LLMEngine": llm.llm_engine}
    for why in NOT_BUILT:
        for owner, path in re.findall(r"\b(LLM|LLMEngine)\.([\w.]*\w)", why):
            operator.attrgetter(path)(owners[owner])
        for name in re.findall(r"^use (\w+)$", why):  # with no class: all have it
            assert all(hasattr(one, name) for one in (LLM, LLMEngine, AsyncLLM))


def test_adapter_is_refused_by_name(llm: LLM) -> None:
    with pytest.raises(ValueError, match="lora_request cannot be used: LoRA adapters"):
        llm.generate("ab", FOUR, lora_request=LoRARequest("style", 1, "/adapters/style"))


def test_wrong_prompt_rejects_the_whole_call(llm: LLM) -> None:
    with pytest.raises(ValueError, match=r"^prompts\[1\] has 64 tokens, but max_model_len is 64"):
        llm.generate(["ab", "x" * 64], FOUR)
    with pytest.raises(ValueError, match=r"^prompts\[2\] is empty"):
        llm.generate(["ab", "cd", ""], FOUR)
    with pytest.raises(ValueError, match=r"^the prompt is empty"):
        llm.generate("", FOUR)
    with pytest.raises(ValueError, match="1 priorities were given for 2"):
        llm.generate(["ab", "cd"], FOUR, priority=[1])
    with pytest.raises(ValueError, match="priority must be a list of integers, got 1"):
        llm.generate(["ab", "cd"], FOUR, priority=1)  # type: ignore[arg-type]
    assert llm.stats().num_steps == 0


@pytest.mark.parametrize(
    "name", ["lora_request", "multi_modal_data", "prompt_adapter_request", "mm_processor_kwargs"]
)
def test_what_is_not_built_is_refused_by_name(llm: LLM, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        llm.generate("abc", FOUR, **{name: {"x": 1}})


def test_a_list_that_asks_for_nothing_is_none(llm: LLM) -> None:
    outputs = llm.generate(["a", "b"], FOUR, lora_request=[None, None])
    assert len(outputs) == 2
    with pytest.raises(ValueError, match="lora_request cannot be used: LoRA adapters"):
        llm.generate(["a", "b"], FOUR, lora_request=[None, LoRARequest("style", 1, "/style")])


def test_defaults_are_those_of_the_engine_arguments() -> None:
    ours, theirs = (inspect.signature(one).parameters for one in (LLM, EngineArgs))
    shared = ours.keys() & theirs.keys()
    assert {"model", "seed", "gpu_memory_utilization"} <= shared
    assert {name: ours[name].default for name in shared} == {
        name: theirs[name].default for name in shared
    }


def test_failing_request_is_an_output_and_a_warning(
    llm: LLM, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="quire.llm"):
        bad, good = llm.generate(prompt_token_ids=[[FAIL_ALONE], [5]], sampling_params=FOUR)
    assert bad.outputs[0].finish_reason == "error"
    assert good.outputs[0].finish_reason == "length"
    assert bad.outputs[0].error == "this request failed"
    (record,) = caplog.records
    assert record.getMessage().startswith("prompts[0] failed")
    assert record.getMessage().endswith("this request failed")


def test_warning_counts_the_prompts_of_all_rounds_of_beam_search(
    llm: LLM, caplog: pytest.LogCaptureFixture
) -> None:
    prompts = [{"prompt_token_ids": [token]} for token in (5, 6, FAIL_ALONE)]
    params = BeamSearchParams(beam_width=1, max_tokens=2)
    with caplog.at_level(logging.WARNING, logger="quire.llm"):
        outputs = llm.beam_search(prompts, params, concurrency_limit=2)
    assert outputs[2].sequences[0].finish_reason == "error"
    assert [record.getMessage()[:17] for record in caplog.records] == ["prompts[2] failed"]


def test_stream_gives_pieces_of_every_prompt(llm: LLM) -> None:
    pieces: dict[str, str] = {}
    order = []
    for output in llm.stream(["ab", "cde"], SamplingParams(max_tokens=6)):
        pieces[output.request_id] = pieces.get(output.request_id, "") + output.outputs[0].text
        order.append(output.request_id)
    assert list(pieces.values()) == ["ababab", "cdecde"]
    assert order != sorted(order)  # interleaved


def test_stream_checks_before_it_starts(llm: LLM) -> None:
    with pytest.raises(ValueError, match="max_model_len"):
        llm.stream("x" * 100, FOUR)


def test_leaving_a_stream_aborts_it(llm: LLM) -> None:
    for _ in llm.stream("abc", SamplingParams(max_tokens=60)):
        break
    assert llm.stats().num_running == 0
    assert not llm.llm_engine.has_unfinished_requests()


def test_call_that_is_refused_spares_the_requests_of_others(llm: LLM) -> None:
    engine = llm.llm_engine
    engine.add_request("0", [5], SamplingParams(max_tokens=3))  # an id that the LLM uses too
    with pytest.raises(ValueError, match="'0' is in use"):
        llm.generate("abc", FOUR)
    assert engine.get_num_unfinished_requests() == 1
    assert texts(llm.generate("abc", FOUR)) == ["abca"]


def test_call_whose_request_was_aborted_beside_it_does_not_wait_for_ever(llm: LLM) -> None:
    stream = llm.stream("abc", SamplingParams(max_tokens=60))
    llm.llm_engine.abort_request(next(stream).request_id)
    with pytest.raises(RequestError, match="was aborted"):
        list(stream)


def test_generate_takes_beam_search_params(llm: LLM) -> None:
    (output,) = llm.generate("abc", BeamSearchParams(beam_width=2, max_tokens=3))
    assert [beam.text for beam in output.outputs] == ["abc", "bca"]


def test_stream_goes_on_after_another_call(llm: LLM) -> None:
    stream = llm.stream("abc", SamplingParams(max_tokens=30))
    text = next(stream).outputs[0].text
    assert texts(llm.generate("xy", SamplingParams(max_tokens=20))) == ["xy" * 10]
    text += "".join(output.outputs[0].text for output in stream)
    assert text == "abc" * 10


def test_threads_may_share_an_llm(llm: LLM) -> None:
    found: dict[str, list[str]] = {}

    def ask(prompt: str) -> None:
        found[prompt] = texts(llm.generate([prompt] * 5, SamplingParams(max_tokens=40)))

    threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in ("ab", "cd", "ef")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == {prompt: [prompt * 20] * 5 for prompt in ("ab", "cd", "ef")}


@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError, SystemExit])
@pytest.mark.parametrize("name", ["send", "receive"])
def test_what_a_signal_handler_raises_aborts_the_call_and_the_llm_lives(
    llm: LLM, monkeypatch: pytest.MonkeyPatch, name: str, error: type[BaseException]
) -> None:
    real = getattr(llm.llm_engine._client, name)

    def handler(number: int, frame: object) -> None:
        raise error("of a handler")

    def interrupted(*given: object) -> object:
        signal.raise_signal(signal.SIGUSR1)
        return real(*given)

    before = signal.signal(signal.SIGUSR1, handler)
    with monkeypatch.context() as patch, pytest.raises(error, match="of a handler"):
        patch.setattr(llm.llm_engine._client, name, interrupted)
        llm.generate(["abc", "def"], SamplingParams(max_tokens=60))
    signal.signal(signal.SIGUSR1, before)
    assert llm.llm_engine.get_num_unfinished_requests() == 0
    assert llm.stats().num_running == 0
    assert texts(llm.generate("abc", FOUR)) == ["abca"]


def test_beam_search_has_prompt_and_continuation(llm: LLM) -> None:
    params = BeamSearchParams(beam_width=2, max_tokens=3)
    outputs = llm.beam_search(["abc", {"prompt_token_ids": [70, 71]}], params, concurrency_limit=1)
    assert [sequence.text for sequence in outputs[0].sequences] == ["abcabc", "abcbca"]
    first = outputs[0].sequences[0]
    assert (first.cum_logprob, first.score) == (-3.0, -1.0)
    assert outputs[1].sequences[1].tokens == [70, 71, 71, 70, 71]
    with pytest.raises(ValueError, match="concurrency_limit must be at least 1, got 0"):
        llm.beam_search("abc", params, concurrency_limit=0)


def test_text_of_beams_has_special_tokens_only_where_they_are_wanted(llm: LLM) -> None:
    prompt = {"prompt_token_ids": [1, 70]}
    for hides, text in [(True, ""), (False, "<|im_start|>")]:
        params = BeamSearchParams(beam_width=1, max_tokens=1, skip_special_tokens=hides)
        (sequence,) = llm.beam_search([prompt], params)[0].sequences
        assert str(sequence.text).replace(text, "") == llm.get_tokenizer().decode([70])
        assert str(sequence.text).count("<|im_start|>") == (0 if hides else 2)


def test_text_of_beams_has_the_token_that_ended_them_only_where_it_is_wanted(llm: LLM) -> None:
    prompt = {"prompt_token_ids": [70, 2, 71]}
    for includes in (True, False):
        params = BeamSearchParams(
            beam_width=1,
            max_tokens=5,
            include_stop_str_in_output=includes,
            skip_special_tokens=False,
        )
        (sequence,) = llm.beam_search([prompt], params)[0].sequences
        assert sequence.tokens == [70, 2, 71, 70, 2]
        shown = sequence.tokens if includes else sequence.tokens[:-1]
        assert sequence.text == llm.get_tokenizer().decode(shown)
        assert (sequence.finish_reason, sequence.stop_reason) == ("stop", None)


def test_a_progress_bar_in_the_place_of_token_ids_is_told_so(llm: LLM) -> None:
    for wrong in (False, print):
        with pytest.raises(ValueError, match=r"is prompt_token_ids, .* write use_tqdm="):
            llm.generate(["a", "b"], FOUR, wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", ["1", 0, -1, 1.5, True])
def test_concurrency_limit_that_cannot_be_is_named(llm: LLM, limit: Any) -> None:
    params = BeamSearchParams(beam_width=2, max_tokens=3)
    message = f"concurrency_limit must be at least 1, got {limit!r}; give an integer"
    with pytest.raises(ValueError, match=re.escape(message)):
        llm.beam_search("abc", params, concurrency_limit=limit)


def test_names_that_programs_for_vllm_read(llm: LLM) -> None:
    assert llm.default_sampling_params == {"max_tokens": 2}
    assert SamplingParams(**llm.default_sampling_params) == llm.get_default_sampling_params()
    llm.generate(["ab", "cd"], FOUR)
    request_id = str(next(llm.request_counter))
    llm.llm_engine.add_request(request_id, "ab", FOUR)
    assert texts(llm.generate("abc", FOUR)) == ["abca"]


@pytest.mark.parametrize(
    ("name", "why"),
    [("model_executor", "cannot be reached"), ("get_tokenizer_group", "use get_tokenizer")],
)
def test_names_that_an_engine_has_not_are_explained(llm: LLM, name: str, why: str) -> None:
    with pytest.raises(AttributeError, match=f"^LLMEngine.{name} is not built yet: .*{why}"):
        getattr(llm.llm_engine, name)


def test_closed_llm_refuses(llm: LLM) -> None:
    llm.close()
    with pytest.raises(EngineDeadError, match="closed"):
        llm.generate("abc", FOUR)


def test_engine_state_is_visible(llm: LLM) -> None:
    assert llm.block_map() == bytes([0, 1, 2, 3])
    assert llm.reset_prefix_cache() is True
    assert llm.model_config.max_model_len == 64
    assert llm.llm_engine.model_config.max_model_len == 64
    assert len(llm.get_tokenizer()) == VOCAB_SIZE


def test_tokenizer_can_be_replaced(llm: LLM, byte_tokenizer: Path) -> None:
    from transformers import AutoTokenizer

    other = AutoTokenizer.from_pretrained(byte_tokenizer)
    llm.set_tokenizer(other)
    assert llm.get_tokenizer() is other
    assert texts(llm.generate("abc", FOUR)) == ["abca"]


def test_name_of_a_tokenizer_is_none(llm: LLM) -> None:
    with pytest.raises(TypeError, match=r"must be a tokenizer, got 'foo'; load it with"):
        llm.set_tokenizer("foo")  # type: ignore[arg-type]
    assert texts(llm.generate("abc", FOUR)) == ["abca"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reasoning_parser": "qwen"}, "no reasoning parser 'qwen'; did you mean qwen3"),
        (
            {"structured_outputs_config": {"reasoning_parser": "mistal"}},
            "no reasoning parser 'mistal'; did you mean mistral",
        ),
        (
            {
                "reasoning_parser": "qwen3",
                "structured_outputs_config": {"reasoning_parser": "mistral"},
            },
            "reasoning_parser is 'qwen3', and 'mistral' in structured_outputs_config",
        ),
        (
            {"reasoning_parser": "qwen3", "skip_tokenizer_init": True},
            "reasoning_parser='qwen3' needs a tokenizer",
        ),
    ],
)
def test_reasoning_parser_that_cannot_be_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LLM(**options)


def test_a_wrong_prompt_behind_many_good_ones_leaves_nothing_running(llm: LLM) -> None:
    at_once = llm._runner.tokens_at_once
    prompts = ["abc" * 20] * (4 * at_once // 60) + ["x" * 10_000, "abc"]
    with pytest.raises(ValueError, match=rf"prompts\[{len(prompts) - 2}\] has 10000 tokens"):
        llm.generate(prompts, FOUR)
    assert not llm.llm_engine.has_unfinished_requests()
    assert texts(llm.generate(["abc"], FOUR)) == ["abca"]


def test_many_texts_are_tokenized_in_parts_and_answered_in_order(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    inputs = llm.llm_engine.front.inputs
    tokenize_all = inputs.tokenize_all

    def counting(prompts: Any) -> Any:
        sizes.append(len(prompts))
        return tokenize_all(prompts)

    monkeypatch.setattr(inputs, "tokenize_all", counting)
    count = 10 * llm._runner.tokens_at_once // 40
    prompts = [f"{i:04} " + "a" * 35 for i in range(count)]
    assert texts(llm.generate(prompts, FOUR)) == [f"{i:04}" for i in range(count)]
    assert sum(sizes) == count
    assert 1 < len(sizes) < count / 8


def test_collections_of_garbage_are_rare_while_a_call_runs(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    thresholds, before = [], gc.get_threshold()
    step = llm.llm_engine.step

    def watching() -> list[RequestOutput]:
        thresholds.append(gc.get_threshold())
        return step()

    monkeypatch.setattr(llm.llm_engine, "step", watching)
    llm.generate("abc", FOUR)
    assert min(thresholds) == (10_000, *before[1:])
    assert gc.get_threshold() == before


def test_a_stream_that_only_the_collector_finds_is_closed_by_it(llm: LLM) -> None:
    class Holder:
        pass

    holder: Any = Holder()
    holder.itself, holder.stream = holder, llm.stream("abc", SamplingParams(max_tokens=60))
    next(holder.stream)
    del holder
    llm.generate("abc", FOUR)
    gc.collect()
    llm.generate("abc", FOUR)
    assert not llm.llm_engine.has_unfinished_requests()
